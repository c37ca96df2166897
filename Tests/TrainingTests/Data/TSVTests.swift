import PEFTSupport
import Testing

@testable import Training

/// Quotes in .tsv files: characters, unless the file is quoted as CSV is.
@Suite struct TSVTests {
    private func cells(_ text: String) throws -> [[JSON?]] {
        try read("a.tsv", text).map { [$0["x"], $0["y"]] }
    }

    @Test func quotesAreCharacters() throws {
        let text = "\u{FEFF}x\ty\r\n\"quoted\" start\t1\r\nhe said \"hi\t0\n\"unbalanced one\t1\n\n last\t\"all\"\n"
        #expect(
            try cells(text) == [
                ["\"quoted\" start", "1"], ["he said \"hi", "0"], ["\"unbalanced one", "1"], [" last", "\"all\""],
            ])
        #expect(try read("a.tsv", text).map(\.location.number) == [2, 3, 4, 6])
        #expect(try cells("x\ty\n\"whole\"\t1\n") == [["\"whole\"", "1"]])
        // Quotes over lines that would be regular without them are characters.
        #expect(try cells("x\ty\n\" a\t1\nb \"\t2\n") == [["\" a", "1"], ["b \"", "2"]])
    }

    @Test(arguments: [
        ("\"x\"\t\"y\"\n\"a\"\t\"1\"\n", ["a"]),
        ("x\ty\n\"he said \"\"hi\"\"\"\t1\nplain\t2\n", ["he said \"hi\"", "plain"]),
        ("x\ty\n\"two\nlines\"\t1\nb\t2", ["two\nlines", "b"]),
        ("x\ty\r\n\"a\ttab\"\t1\r\n", ["a\ttab"]),
    ])
    func quotedFilesAreReadAsSuch(text: String, expected: [JSON]) throws {
        #expect(try cells(text).map { $0[0] } == expected)
    }

    @Test(arguments: [
        ("x\ty\n1\t2\n\"1\n", "line 3 has 1 column where the header has 2; quote fields"),
        ("x\ty\n1\t2\t3 \"\n", "line 2 has 3 columns where the header has 2; quote fields"),
        ("x\tx\n1\t2\n", "has more than one column named 'x'"), ("x\ty\n", "has a header but no rows"),
    ])
    func brokenFiles(text: String, expected: String) {
        let error = message { _ = try read("a.tsv", text) }
        #expect(error.hasPrefix("a.tsv \(expected)"), "\(error)")
    }
}
