import Foundation
import PEFTSupport
import Testing

@testable import PEFTSupport

@Suite struct JSONParserTests {
    private func parse(_ text: String) throws -> JSON { try JSONParser.parse(Array(text.utf8)[...]) }

    @Test func numbersKeepTheirKind() throws {
        #expect(
            try parse("[0, -7, 1.0, -2.5e-3, 1E2, 18446744073709551616, -0]") == [
                .integer(0), .integer(-7), .number(1), .number(-0.0025), .number(100), .number(18446744073709551616),
                .integer(0),
            ])
    }

    @Test func escapes() throws {
        #expect(try parse(#""\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE42\u0000""#) == "\"\\/\u{8}\u{C}\n\r\té🙂\0")
    }

    @Test(arguments: [
        #""\ud83d""#, #""\ud83dx""#, #""\ud83d\u0041""#, #""\ude42""#, #""\u00g0""#, #""\u+123""#, #""\u12"#,
        "\"a\tb\"",
        #""\"#, "", " ", "-", "1.", ".5", "+1", "1e", "tru", "[", "[,]", "{\"a\"", "{\"a\":", "{,}", "]", "0x1",
        "\u{A0}1",
    ])
    func brokenTextsAreErrors(text: String) {
        #expect(throws: JSONParser.Failure.self) { try parse(text) }
    }

    @Test func depthIsBounded() throws {
        let depth = 100_000
        #expect(throws: JSONParser.Failure.self) { try parse(String(repeating: "[", count: depth)) }
        #expect(throws: JSONParser.Failure.self) { try parse(String(repeating: "{\"a\":", count: depth)) }
        let nested = String(repeating: "[", count: 200) + String(repeating: "]", count: 200)
        #expect(try parse(nested).array?.count == 1)
    }

    /// Random values survive being written and read; no damaged text passes that Foundation refuses.
    @Test func agreesWithFoundation() throws {
        var random = SeededRandom(seed: 11)
        func value(_ depth: Int) -> JSON {
            switch random.below(depth > 0 ? 8 : 5) {
            case 0: return .null
            case 1: return .bool(random.below(2) == 0)
            case 2: return .integer(random.below(2_000) - 1_000)
            case 3: return .number(Double(random.below(1_000_000)) / 1_024 + 0.5 / 1_024)
            case 4, 5: return .string(["", "a\n\"b\\", "é東🙂", "\u{1}", "x/y"][random.below(5)])
            case 6: return .array((0..<random.below(4)).map { _ in value(depth - 1) })
            default:
                let fields = (0..<random.below(4)).map { ("k\($0)", value(depth - 1)) }
                return .object(Dictionary(fields, uniquingKeysWith: { first, _ in first }))
            }
        }
        let damage = Array(#"{}[]",:\0-+.eEtnu "#.utf8)
        for round in 0..<1_500 {
            let original = value(3)
            let text = original.text(indent: round % 2 == 0 ? 2 : nil)
            #expect(try parse(text) == original)
            var bytes = Array(text.utf8)
            let position = random.below(bytes.count)
            guard bytes[position] < 0x80 else { continue }
            if round % 3 == 0 {
                bytes.removeSubrange(position...)
            } else {
                bytes[position] = damage[random.below(damage.count)]
            }
            if (try? JSONParser.parse(bytes[...])) != nil {
                #expect((try? JSONDecoder().decode(JSON.self, from: Data(bytes))) != nil, "\(bytes)")
            }
        }
    }

    /// JSON has one kind of number.
    @Test func numbersAreComparedByTheirValues() throws {
        func parsed(_ text: String) throws -> JSON { try JSON.parse(Data(text.utf8), name: "text") }
        for (a, b) in [("0", "0.0"), ("-0.0", "0"), ("1e3", "1000"), ("[1, {\"a\": 2.0}]", "[1.0, {\"a\": 2}]")] {
            #expect(try parsed(a) == parsed(b))
            #expect(try parsed(a).hashValue == parsed(b).hashValue)
        }
        for (a, b) in [("0", "0.5"), ("9007199254740993", "9007199254740992.0"), ("1", "true"), ("0", "null")] {
            #expect(try parsed(a) != parsed(b))
        }
        // A number keeps its form, which templates render.
        #expect(try parsed("1.0").text() == "1.0")
        let coded = try JSONDecoder().decode(JSON.self, from: JSONEncoder().encode(JSON.number(0)))
        #expect(coded == .number(0))
    }
}
