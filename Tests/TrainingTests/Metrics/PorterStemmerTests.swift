import Testing

@testable import Training

@Suite struct PorterStemmerTests {
    private struct Stems: Decodable { var stems: [String: String] }

    @Test func agreesWithNLTK() throws {
        let stems = try Fixture.read(Stems.self, from: "porter").stems
        #expect(stems.count >= 2_000)
        let wrong = stems.filter { PorterStemmer.stem($0.key) != $0.value }
        let listed = wrong.prefix(10).map { "\($0.key): \(PorterStemmer.stem($0.key)), not \($0.value)" }
        #expect(wrong.isEmpty, "\(listed)")
    }

    @Test(arguments: [
        ("caresses", "caress"), ("ponies", "poni"), ("dies", "die"), ("died", "die"), ("spied", "spi"),
        ("agreed", "agre"), ("feed", "feed"), ("hopping", "hop"), ("filing", "file"), ("falling", "fall"),
        ("enjoy", "enjoy"), ("happy", "happi"), ("nationally", "nation"), ("relational", "relat"),
        ("geology", "geolog"), ("adoption", "adopt"), ("controlling", "control"), ("skies", "sky"),
    ])
    func rules(word: String, stem: String) {
        #expect(PorterStemmer.stem(word) == stem)
    }

    @Test(arguments: ["", "a", "is", "yyy", "ing", "1990", "tsktsk"])
    func shortAndOddWordsSurvive(word: String) {
        #expect(PorterStemmer.stem(word) == word)
    }
}
