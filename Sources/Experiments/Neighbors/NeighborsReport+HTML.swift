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
            <p class="soft">\(method) over \(model), \(tokens.count) virtual tokens</p></header>
            <section class="lead" aria-label="Result">\(lead.joined("\n"))</section>
            <section aria-labelledby="picture"><h2 id="picture">Picture</h2>
            <p class="note">Virtual tokens (diamonds) with their five nearest words by cosine (dots), in the plane in which they differ most. \
            Distances in a plane are only a shadow of those in \(dimension) dimensions.</p>
            <div class="wide">\(picture(width: 760))</div><div class="narrow">\(picture(width: 350))</div></section>
            <section aria-labelledby="words"><h2 id="words">Nearest words</h2>
            <p class="note">Marked words name the task. ▁, Ġ and ## are the tokenizer's marks of where words begin or go on.</p>
            <div class="scroll" tabindex="0" role="region" aria-labelledby="words"><table><thead><tr><th scope="col">Token</th>\
            <th scope="col" class="words">by cosine</th><th scope="col" class="words">by distance</th>\
            <th scope="col">cosine <small>among the five</small></th></tr></thead>
            <tbody>\(rows.joined("\n"))</tbody></table></div></section>
            <footer>Written by swift-peft \(version). The page is self-contained and loads nothing.</footer>
            """
        return HTMLPage(title: "Neighbours of \(adapter)", body: body).markup.text
    }

    private var dimension: String { "the embedding's" }

    private func picture(width: Double) -> Markup {
        let all = tokens.flatMap { [$0.place] + $0.neighborPlaces }
        let frame = PlotFrame(width: width, height: width < 450 ? 340 : 460, left: 12, right: 12, top: 12, bottom: 12)
        func scale(_ index: Int, _ range: (Double, Double)) -> Scale {
            Scale.tight(all.map { $0[index] }, room: 0.06, start: range.0, end: range.1)
        }
        let (x, y) = (scale(0, frame.xRange), scale(1, frame.yRange))
        var content: Markup = ""
        for token in tokens {
            let (px, py) = (x(token.place[0]), y(token.place[1]))
            for place in token.neighborPlaces {
                content +=
                    "<line class=\"leader m1\" x1=\"\(px)\" y1=\"\(py)\" x2=\"\(x(place[0]))\" y2=\"\(y(place[1]))\"/>"
            }
        }
        var placement = LabelPlacement(
            frame: frame.plot,
            obstacles: all.map {
                Box(x: x($0[0]) - 4, y: y($0[1]) - 4, width: 8, height: 8)
            })
        var drawn: Set<Int> = []
        let diamond = RunStyle(colour: 2, shape: .diamond)
        for token in tokens {
            for (word, place) in zip(token.cosine, token.neighborPlaces) where drawn.insert(word.id).inserted {
                let (px, py) = (x(place[0]), y(place[1]))
                let style = RunStyle(colour: word.namesTask ? 3 : 1, shape: .circle)
                content +=
                    "<g class=\"\(style.cssClass)\"><title>\(word.text)</title>\(style.marker(x: px, y: py, radius: 3))</g>"
                // Names where there is room; the table has all.
                guard drawn.count <= (width < 450 ? 12 : 60) || word.namesTask else { continue }
                let text = fitted(word.text, width: 110, size: 12.5)
                let place = placement.place(x: px, y: py, width: textWidth(text, size: 12.5), height: 14)
                guard place.distance < 24 else { continue }
                content +=
                    "<text class=\"name \(style.cssClass)\" x=\"\(place.box.x)\" y=\"\(place.box.y + 11)\">\(text)</text>"
            }
        }
        for token in tokens {
            let (px, py) = (x(token.place[0]), y(token.place[1]))
            content +=
                "<g class=\"\(diamond.cssClass)\"><title>virtual token \(token.name)</title>\(diamond.marker(x: px, y: py, radius: 4.5))</g>"
        }
        return frame.svg(description: "Virtual tokens and their nearest words in the plane.", content)
    }
}
