import Testing

@testable import Serving

@Suite struct QueueTests {
    @Test func keysTakeTurns() {
        var queue = FairQueue<String>()
        for element in ["a1", "a2", "a3", "b1", "c1", "b2"] { queue.append(element, key: String(element.prefix(1))) }
        var order: [String] = []
        while let next = queue.next() { order += queue.pop(key: next.key).map { [$0] } ?? [] }
        #expect(order == ["a1", "b1", "c1", "a2", "b2", "a3"])
        #expect(queue.isEmpty && queue.count == 0)
    }

    /// A client with many requests, or many adapters, doesn't hold up the others.
    @Test func clientsTakeTurns() {
        var queue = ClientQueue<String>()
        for element in ["xa1", "xa2", "xb1", "xc1", "ya1", "za1", "ya2"] {
            queue.append(element, client: String(element.prefix(1)), key: String(element.dropFirst().prefix(1)))
        }
        #expect(queue.drained(4) == ["xa1", "ya1", "za1", "xb1"])
        #expect(queue.count == 3 && queue.next()?.element == "ya2")
        #expect(queue.remove { $0.hasPrefix("y") || $0 == "xc1" }.sorted() == ["xc1", "ya2"])
        #expect(queue.count == 1 && queue.drained() == ["xa2"])
        #expect(queue.isEmpty && queue.next() == nil)
    }

    /// Keys that are skipped keep their turn.
    @Test func skippedKeysKeepTheirTurn() throws {
        var queue = ClientQueue<String>()
        for element in ["xa1", "xb1", "xa2", "ya1", "yc1"] {
            queue.append(element, client: String(element.prefix(1)), key: String(element.dropFirst().prefix(1)))
        }
        #expect(queue.keys == ["a", "b", "c"])
        for expected in ["xb1", "yc1"] {
            let next = try #require(queue.next(skipping: ["a"]))
            #expect(next.element == expected)
            // Others that come meanwhile change nothing.
            if expected == "yc1" { queue.append("xd1", client: "x", key: "d") }
            #expect(queue.pop(client: next.client, key: next.key) == expected)
        }
        #expect(
            queue.next(skipping: ["a", "d"]) == nil && queue.pop(client: "z", key: "a") == nil && queue.count == 4)
        #expect(queue.drained() == ["xa1", "ya1", "xd1", "xa2"])
    }

    @Test func removedElementsLeaveTheOrder() {
        var queue = FairQueue<String>()
        for element in ["a1", "b1", "a2", "c1"] { queue.append(element, key: String(element.prefix(1))) }
        #expect(queue.remove { $0 == "a1" || $0 == "b1" }.sorted() == ["a1", "b1"])
        #expect(queue.count == 2 && queue.next()?.element == "a2")
        queue.pop(key: "a")
        #expect(queue.next()?.element == "c1")
    }

    /// Texts in pieces of every length give what the whole text gives.
    @Test(arguments: [["stop"], ["aab", "ab"], ["aa", "aaa"], ["é!", "xyz"]])
    func stopTextsAreFoundAcrossPieces(stops: [String]) {
        for text in ["no end", "aaab then", "a stop here", "xyxyz", "caf\u{e9}! more", "aaaa", "st"] {
            for length in 1...4 {
                var matcher = StopMatcher(stops, includesStop: false)
                var rest = text[...]
                var (out, found): (String, String?) = ("", nil)
                while !rest.isEmpty, found == nil {
                    let piece = matcher.append(String(rest.prefix(length)))
                    rest = rest.dropFirst(length)
                    out += piece.text
                    found = piece.stop
                }
                if found == nil { out += matcher.finish() }
                let first = stops.compactMap { text.range(of: $0)?.lowerBound }.min()
                // Of texts that begin together a shorter one may be found before the longer is complete.
                #expect(out == String(text[..<(first ?? text.endIndex)]), "\(text) by \(length), \(stops)")
                #expect((found != nil) == (first != nil))
            }
        }
    }

    @Test func histogramsCountUpToTheirBounds() {
        var histogram = Histogram(bounds: [1, 2])
        for value in [0.5, 1, 1.5, 3] { histogram.record(value) }
        #expect(histogram.counts == [2, 1, 1] && histogram.sum == 6 && histogram.total == 4)
    }
}

extension ClientQueue {
    /// Takes elements in turn.
    fileprivate mutating func drained(_ most: Int = .max) -> [Element] {
        var result: [Element] = []
        while result.count < most, let next = next() {
            if let element = pop(client: next.client, key: next.key) { result.append(element) }
        }
        return result
    }
}
