import Foundation
import PEFTSupport
import Testing

@testable import PEFTTokenizers

/// What is found in one go is what the stages make one after the other.
@Suite struct SearchTests {
    // MARK: - Byte-pair encoding

    /// Merges of random pieces, each piece made of earlier ones, some of them in several ways.
    private struct RandomMerges {
        let vocabulary: Vocabulary
        let list: MergeList

        /// - Parameter isShuffled: whether merges come in any order.
        init(_ random: inout SeededRandom, isShuffled: Bool) {
            var pieces = ["▁", "a", "b", "c", "é"]
            var merges: [(String, String)] = []
            for _ in 0..<60 {
                let left = pieces[Int(random.next() % UInt64(pieces.count))]
                let right = pieces[Int(random.next() % UInt64(pieces.count))]
                let isNew = !merges.contains { $0 == (left, right) }
                guard left.count + right.count <= 9, isNew else { continue }
                merges.append((left, right))
                if !pieces.contains(left + right) { pieces.append(left + right) }
            }
            if isShuffled { merges.sort { _, _ in random.next() % 2 == 0 } }
            var vocabulary = Vocabulary()
            for (id, piece) in (["<unk>", "<0x7A>"] + pieces).enumerated() {
                vocabulary.insert(Array(piece.utf8), id: id)
            }
            var list = MergeList()
            for (left, right) in merges { list.append(left.utf8, right.utf8) }
            (self.vocabulary, self.list) = (vocabulary, list)
        }
    }

    private static func randomText(_ random: inout SeededRandom, _ alphabet: [String], length: Int) -> [UInt8] {
        (0..<length).flatMap { _ in Array(alphabet[Int(random.next() % UInt64(alphabet.count))].utf8) }
    }

    @Test(arguments: [false, true], [false, true]) func longTextsAreCutAsMergingCutsThem(
        isShuffled: Bool, hasByteFallback: Bool
    ) throws {
        var random = SeededRandom(seed: 5)
        var searched = 0
        for round in 0..<150 {
            let merges = RandomMerges(&random, isShuffled: isShuffled)
            let table = try MergeTable(merges.list, merges.vocabulary, prefixLength: 0, file: "test")
            if BPESearch(merges.vocabulary, table) != nil { searched += 1 }
            let configuration = BPE.Configuration(
                unknownToken: "<unk>", fusesUnknown: round % 2 == 0, byteFallback: hasByteFallback)
            let model = try BPE(
                vocabulary: merges.vocabulary, merges: merges.list, configuration: configuration, file: "test")
            for alphabet in [["a"], ["▁", "a", "b"], ["▁", "a", "b", "c", "é", "z", "ø", "語"]] {
                let text = Self.randomText(&random, alphabet, length: 50 + round)
                var ids: [Int] = []
                model.tokenize(PreTokenizedText(text, startsText: true), into: &ids)
                // Finding places merges.
                #expect(ids == model.place(text).map(\.id), "\(String(decoding: text, as: UTF8.self))")
            }
        }
        // In others a merge goes before those of its own pieces.
        #expect(searched > (isShuffled ? 0 : 100))
    }

    /// Merges that could go over what is no piece, or characters that vanish, leave nothing to search for.
    @Test func unknownCharactersMayMergeOrVanish() throws {
        var vocabulary = Vocabulary()
        for (id, piece) in ["<unk>", "a", "b", "ab", "<unk>a"].enumerated() {
            vocabulary.insert(Array(piece.utf8), id: id)
        }
        var list = MergeList()
        list.append("<unk>".utf8, "a".utf8)
        list.append("a".utf8, "b".utf8)
        let text = Array(String(repeating: "azb", count: 30).utf8)
        for unknown in ["<unk>", nil] {
            let model = try BPE(
                vocabulary: vocabulary, merges: list, configuration: BPE.Configuration(unknownToken: unknown),
                file: "test")
            var ids: [Int] = []
            model.tokenize(PreTokenizedText(text, startsText: true), into: &ids)
            #expect(ids == model.place(text).map(\.id))
            #expect(unknown != nil || ids == Array(repeating: 3, count: 30))
        }
    }

    @Test(.enabled(if: Folders.hasSubwordTokenizers, "needs the tokenizers of ../shared/data"))
    func tinystoriesIsSearched() throws {
        let tokenizer = try Tokenizer.load(folder: Folders.tinystories)
        let lines = try Fixture.read("nasty-lines", as: [String].self)
        for start in stride(from: 0, to: lines.count - 5, by: 5) {
            let text = Array(lines[start..<start + 5].joined(separator: "▁").replacing(" ", with: "▁").utf8)
            var ids: [Int] = []
            tokenizer.model.tokenize(PreTokenizedText(text, startsText: true), into: &ids)
            #expect(ids == tokenizer.model.place(text).map(\.id), "lines from \(start)")
        }
    }

    @Test func doubleArrayFindsTheLongestKey() throws {
        var random = SeededRandom(seed: 3)
        let alphabet = (0..<128).map { String(UnicodeScalar(UInt8($0))) } + ["é", "語", "👍"]
        var keys: Set<[UInt8]> = []
        while keys.count < 3000 {
            let isNarrow = random.next() % 2 == 0
            let length = 1 + Int(random.next() % 4)
            keys.insert(Self.randomText(&random, isNarrow ? ["a", "b", "\u{0}"] : alphabet, length: length))
            if keys.count == 40 { for letter in alphabet { keys.insert(Array(letter.utf8)) } }
        }
        let numbered = keys.sorted { $0.lexicographicallyPrecedes($1) }.enumerated().map {
            (key: $1[...], number: Int32($0))
        }
        let array = try #require(DoubleArray(numbered.shuffled(using: &random)))
        let numbers = Dictionary(uniqueKeysWithValues: numbered.map { (Array($0.key), $0.number) })
        for round in 0..<3000 {
            let text = Self.randomText(&random, round % 2 == 0 ? ["a", "b", "\u{0}"] : alphabet, length: 6)
            let wanted = (1...text.count).reversed().lazy.compactMap { end in
                numbers[Array(text[..<end])].map { (number: $0, end: end) }
            }.first
            let found = text.withUnsafeBufferPointer { array.longest($0, from: 0) }
            #expect(found.number == wanted?.number ?? ByteTrie.none)
            #expect(found.end == wanted?.end ?? 0)
        }
        let empty = try #require(DoubleArray([]))
        #expect([UInt8]([0, 97]).withUnsafeBufferPointer { empty.longest($0, from: 0).number } == ByteTrie.none)
    }

    // MARK: - Unigram

    @Test(arguments: ["always", "first", "never"], ["▁", "_", "€"]) func metaspaceAndUnigramInOneAreBoth(
        scheme: String, mark: String
    ) throws {
        var random = SeededRandom(seed: 9)
        let pieces = [
            "<unk>", mark, mark + "a", "a", "b", "ab", "ba", mark + "ab", mark + "abba", "é", "aé", mark + "é",
        ]
        let model = try Unigram(
            vocabulary: pieces.enumerated().map { ($1, -Double($0 % 5) - 0.5 * Double($1.count)) }, unknownID: 0,
            byteFallback: false, file: "test")
        let metaspace = MetaspacePreTokenizer(
            Metaspace(
                replacement: try #require(mark.unicodeScalars.first),
                prependScheme: try #require(Metaspace.PrependScheme(rawValue: scheme))))
        let punctuation = CharacterSplit(behavior: .isolated) { $0.isPunctuation }
        for stages in [[metaspace], [WhitespaceSplit(), metaspace], [punctuation, metaspace]] as [[any PreTokenizer]]
        {
            let preTokenizer = PreTokenizerSequence(members: stages)
            let joint = try #require(jointStages(preTokenizer, model))
            #expect(joint is MetaspaceUnigram)
            for round in 0..<300 {
                let alphabet = ["a", "b", "ab", " ", "  ", mark, "é", "語", "!", "abbabababbabaabbaab"]
                let text = Self.randomText(&random, alphabet, length: round % 20)
                for startsText in [true, false] {
                    var pieces = PreTokenizedText(text, startsText: startsText)
                    preTokenizer.split(&pieces)
                    var wanted: [Int] = []
                    model.tokenize(pieces, into: &wanted)
                    var ids: [Int] = []
                    joint.encode(text, startsText: startsText, into: &ids)
                    #expect(ids == wanted, "\(String(decoding: text, as: UTF8.self).debugDescription)")
                }
            }
        }
    }

    // MARK: - Text

    @Test(arguments: 1...4) func runsOfSpacesAreThoseOfTheExpression(minimum: Int) throws {
        var random = SeededRandom(seed: 1)
        let pattern = TextPattern.run(of: [0x20], minimum: minimum)
        let expression = TextPattern.expression(try LimitedExpression(" {\(minimum),}"))
        for length in 0..<200 {
            let text = Self.randomText(&random, [" ", "x", "é", "  "], length: length % 25)
            #expect(pattern.matches(in: text) == expression.matches(in: text))
        }
    }

    /// Added tokens that begin alike are looked for by the end of their beginning.
    @Test(arguments: [["<a>"], ["<a>", "<ab>"], ["▁<a>", "▁<b"], ["<a>", "b"], ["aab", "aac"]])
    func addedTokensAreFound(contents: [String]) throws {
        var random = SeededRandom(seed: 2)
        var vocabulary = Vocabulary()
        vocabulary.insert(Array("<unk>".utf8), id: 0)
        let model = try WordLevel(vocabulary: vocabulary, unknownToken: "<unk>", file: "test")
        let added = try AddedVocabulary(
            contents.map { AddedToken(content: $0) }, model: model, normalizer: nil, file: "test")
        for length in 0..<400 {
            let text = Self.randomText(&random, ["<", "a", "b", ">", "▁", "c", contents[0]], length: length % 12)
            // Leftmost, then longest.
            var wanted: [AddedVocabulary.Segment] = []
            var (rest, index) = (0, 0)
            while index < text.count {
                let matching = contents.indices.filter { text[index...].starts(with: contents[$0].utf8) }
                guard let match = matching.max(by: { contents[$0].utf8.count < contents[$1].utf8.count }) else {
                    index += 1
                    continue
                }
                if rest < index { wanted.append(.text(rest..<index)) }
                rest = index + contents[match].utf8.count
                wanted.append(.token(1 + match, index..<rest))
                index = rest
            }
            if rest < text.count { wanted.append(.text(rest..<text.count)) }
            #expect(added.segments(of: text) == wanted)
        }
    }
}
