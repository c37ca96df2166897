import Testing

@testable import Training

@Suite struct ExactMatchTests {
    @Test func trimsWhitespaceOnly() {
        #expect(ExactMatch.matches(prediction: " Paris\r\n", references: ["London", "Paris"]))
        #expect(!ExactMatch.matches(prediction: "paris", references: ["Paris"]))
        #expect(!ExactMatch.matches(prediction: "Paris.", references: ["Paris"]))
        #expect(ExactMatch.matches(prediction: "", references: [" "]))
        #expect(!ExactMatch.matches(prediction: "a", references: []))
        // Composed and decomposed letters are different code points.
        #expect(!ExactMatch.matches(prediction: "\u{E9}", references: ["e\u{301}"]))
    }

    @Test(arguments: [
        ("The Cat, and a dog!", "cat and dog"),
        ("an apple a day", "apple day"),
        ("theory of another", "theory of another"),
        ("a.b the-end", "ab theend"),
        ("  Two\n\tlines ", "two lines"),
        ("\u{2014}the\u{2014}", "\u{2014} \u{2014}"),
        ("A", ""),
    ])
    func normalizesAsSQuAD(text: String, expected: String) {
        #expect(ExactMatch.normalized(text) == expected)
    }

    @Test func matchesNormalized() {
        let references = ["Louvre", "eiffel tower"]
        #expect(ExactMatch.matchesNormalized(prediction: "The Eiffel Tower.", references: references))
        #expect(!ExactMatch.matchesNormalized(prediction: "Eiffel", references: ["eiffel tower"]))
    }
}
