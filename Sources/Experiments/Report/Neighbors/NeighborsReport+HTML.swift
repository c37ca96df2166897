import PEFTSupport

extension NeighborsReport {
    /// The nearest words and their map as one self-contained HTML page.
    package func html(navigation: Markup = .empty) -> String {
        let numbers = NumberFormat.page
        let lead: [Markup] = sentences(numbers).map { "<p>\($0)</p>" }
        let rows: [Markup] = tokens.map { token in
            func list(_ words: [Neighbor]) -> Markup {
                let items: [Markup] = words.map { word in
                    let text: Markup = word.namesTask ? "<mark>\(word.text)</mark>" : "\(word.text)"
                    return
                        "<span class=\"word\">\(text) <span class=\"spread\">\(numbers.decimal(word.value, places: 2))</span></span>"
                }
                return items.joined(" ")
            }
            return """
                <tr><th scope="row">\(token.name)</th><td class="words">\(list(token.cosine))</td>\
                <td class="words">\(list(token.distance))</td><td>\(numbers.decimal(token.clustering, places: 3))</td></tr>
                """
        }
        let body: Markup = """
            <header><h1>Neighbors of \(adapter)</h1>
            <p class="soft">\(method) over \(model), \(counted(tokens.count, "virtual token"))</p></header>
            <section class="lead" aria-label="Result">\(lead.joined("\n"))</section>
            <section aria-labelledby="map"><h2 id="map">Map</h2>
            <p class="note">Virtual tokens (diamonds) and their five nearest words by cosine similarity (dots), projected onto their first two \
            principal components. Labels are drawn where there is room, task words first; hover over a mark for its name. Crowded regions \
            are enlarged, and two dimensions show only part of the distances in the embedding space.</p>
            <div class="wide">\(map(width: 760))</div><div class="narrow">\(map(width: 350))</div></section>
            <section aria-labelledby="words"><h2 id="words">Nearest words</h2>
            <p class="note">Highlighted words name the task. ▁, Ġ and ## are the tokenizer's markers for word starts and continuations.</p>
            <div class="scroll" tabindex="0" role="region" aria-labelledby="words"><table><thead><tr><th scope="col">Token</th>\
            <th scope="col" class="words">Nearest by cosine similarity</th><th scope="col" class="words">Nearest by Euclidean distance</th>\
            <th scope="col">Mean cosine <small>among the five</small></th></tr></thead>
            <tbody>\(rows.joined("\n"))</tbody></table></div></section>
            <footer>Written by swift-peft \(version). The page is self-contained and loads nothing.</footer>
            """
        return HTMLPage(title: "Neighbors of \(adapter)", body: body, navigation: navigation).markup.text
    }

}
