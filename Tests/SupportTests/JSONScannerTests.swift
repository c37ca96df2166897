import Testing

@testable import PEFTSupport

@Suite struct JSONScannerTests {
    /// The names of an object's members and where their values end, or the error.
    func names(_ text: String) throws -> [String] {
        var scanner = JSONScanner(Array(text.utf8))
        var names: [String] = []
        try scanner.members { scanner in
            names.append(String(decoding: scanner.text, as: UTF8.self))
            try scanner.skipValue()
        }
        return names
    }

    @Test func membersComeInOrderWhateverTheyHold() throws {
        let text = ##" { "a" : {"x": [1, "}]\""]} ,"b":[[],{}], "c":-1.5e3,"d":"\\","e":null , "a":true} "##
        #expect(try names(text) == ["a", "b", "c", "d", "e", "a"])
        #expect(try names("{}") == [])
        #expect(try names("\n{ }\t") == [])
    }

    @Test func equivalentNamesStayApart() throws {
        var scanner = JSONScanner(Array("{\"\u{E9}\": 1, \"e\u{301}\": 2}".utf8))
        var counts: [[UInt8]: Int] = [:]
        try scanner.members { scanner in
            let name = scanner.text
            counts[name] = try scanner.count()
        }
        #expect(counts == [[0xC3, 0xA9]: 1, [0x65, 0xCC, 0x81]: 2])
        #expect(scanner.peek == nil)
    }

    @Test func escapesAreResolved() throws {
        var scanner = JSONScanner(Array(#""\"\\\/\b\f\n\r\t\u0120\uD83D\ude00z""#.utf8))
        try scanner.string()
        #expect(String(decoding: scanner.text, as: UTF8.self) == "\"\\/\u{8}\u{C}\n\r\t\u{120}😀z")
    }

    @Test(arguments: [
        #""a"#, #""\"#, #""\x""#, #""\u12""#, #""\u12g4""#, #""\ud800""#, #""\ud800\u0041""#, #""\udc00""#, "\"\n\"",
        "3", "",
    ])
    func damagedStringIsRefused(text: String) {
        var scanner = JSONScanner(Array(text.utf8))
        #expect(throws: JSONScanner.Failure.self) { try scanner.string() }
    }

    @Test(arguments: ["-1", "1.0", "1e3", "01", "", "x", "1000000000000000000000"])
    func onlyWholeNumbersCount(text: String) {
        var scanner = JSONScanner(Array(text.utf8))
        #expect(throws: JSONScanner.Failure.self) { try scanner.count() }
    }

    @Test func wholeNumbersAreRead() throws {
        var scanner = JSONScanner(Array("[0, 7,150000 ]".utf8))
        var numbers: [Int] = []
        try scanner.elements { numbers.append(try $0.count()) }
        #expect(numbers == [0, 7, 150_000])
    }

    @Test(arguments: [
        "{", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,", "{\"a\":1,}", "{\"a\" 1}", "{1:2}", "[]", "", "{\"a\":}",
        "{\"a\":[1}", "{\"a\":[", "{\"a\":\"", "{\"a\":\"x\\",
    ])
    func damagedObjectIsRefused(text: String) throws {
        // What is skipped is only looked through for its end, so a wrong bracket shows no earlier than there.
        #expect(throws: JSONScanner.Failure.self) { try names(text) }
    }
}
