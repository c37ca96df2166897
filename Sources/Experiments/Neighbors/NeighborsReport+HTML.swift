import Support

extension NeighborsReport {
    /// The lists and a picture as one HTML page that loads nothing.
    public func html() -> String {
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
            <header><h1>What \(adapter) lies near</h1>
            <p class="soft">\(method) over \(model), \(counted(tokens.count, "virtual token"))</p></header>
            <section class="lead" aria-label="Result">\(lead.joined("\n"))</section>
            <section aria-labelledby="picture"><h2 id="picture">Picture</h2>
            <p class="note">Virtual tokens (diamonds) with their five nearest words by cosine (dots), in the plane in which they differ most. \
            Words are named where there is room, those that name the task first; a pointer over a mark shows its name. Crowded regions \
            are drawn larger, and distances in a plane are only a shadow of those in \(dimension) dimensions.</p>
            <div class="wide">\(map(width: 760))</div><div class="narrow">\(map(width: 350))</div></section>
            <section aria-labelledby="words"><h2 id="words">Nearest words</h2>
            <p class="note">Marked words name the task. ▁, Ġ and ## are the tokenizer's marks of where words begin or go on.</p>
            <div class="scroll" tabindex="0" role="region" aria-labelledby="words"><table><thead><tr><th scope="col">Token</th>\
            <th scope="col" class="words">by cosine</th><th scope="col" class="words">by distance</th>\
            <th scope="col">cosine <small>among the five</small></th></tr></thead>
            <tbody>\(rows.joined("\n"))</tbody></table></div></section>
            <footer>Written by swift-peft \(version). The page is self-contained and loads nothing.</footer>
            """
        return HTMLPage(title: "Neighbors of \(adapter)", body: body).markup.text
    }

    private var dimension: String { "the embedding's" }
}
