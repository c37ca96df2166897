import PEFTSupport
import Testing

@testable import Training

@Suite struct TemplateTests {
    private let row = Row(
        [
            "dialogue": "A: hi\nB: {bye}", "n": 3, "ratio": 0.5, "yes": true, "none": nil, "lines": ["a", "b"],
            "mixed": ["a", 1], "empty": [], "meta": ["title": "T", "deep": ["er": "D"]], "a.b": "dotted",
            "two words": "spaced",
        ],
        location: Row.Location(file: "train.jsonl", number: 7))

    @Test(arguments: [
        ("Summarize.\n\n{dialogue}\n\nSummary: ", "Summarize.\n\nA: hi\nB: {bye}\n\nSummary: "),
        ("{n} {ratio} {yes}", "3 0.5 true"),
        ("{{{n}}} {{n}} }}{{", "{3} {n} }{"),
        ("{lines}|{empty}|", "a\nb||"),
        ("{meta.title}{meta.deep.er}", "TD"),
        ("{a.b}", "dotted"),
        ("{two words}", "spaced"),
        ("no \\n field", "no \\n field"),
        ("", ""),
    ])
    func renders(text: String, expected: String) throws {
        let template = try Template(text)
        #expect(try template.render(row) == expected)
        try template.check(against: row)
        #expect(template.text == text)
    }

    /// A part that stands only where its field has something.
    @Test(arguments: [
        ("a{?n}-{n}{/n}-b", "a-3-b"), ("a{?none}-{none}{/none}b", "ab"), ("a{?missing}-{missing}{/missing}b", "ab"),
        ("a{?empty}-{/empty}b{?meta.title}{?n}{meta.title}{/n}{/meta.title}", "abT"), ("{?mixed}x{/mixed}", "x"),
    ])
    func sections(text: String, expected: String) throws {
        let template = try Template(text)
        #expect(try template.render(row) == expected && template.fields.isEmpty)
        try template.check(against: row)
    }

    @Test(arguments: [
        ("{?n}x", "'{?n}' without a matching '{/n}'"), ("x{/n}", "'{/n}' without a matching '{?n}'"),
        ("{?n}{?a}{/n}{/a}", "'{/n}'"),
        (String(repeating: "{?n}", count: 50_000) + String(repeating: "{/n}", count: 50_000), "nested"),
    ])
    func sectionsHaveToBeClosed(text: String, problem: String) throws {
        let error = try #require(throws: PEFTError.self) { try Template(text) }
        #expect(error.problem.contains(problem) && error.problem.contains("position"), "\(error)")
    }

    @Test func fieldsInOrderOfFirstUse() throws {
        #expect(try Template("{b}{a}{b} {{c}} {m.x}").fields == ["b", "a", "m.x"])
    }

    @Test(arguments: [
        ("ab {c", "unmatched '{' at position 4"),
        ("ab } c", "unmatched '}' at position 4"),
        ("é{a{b}}", "unmatched '{' at position 2"),
        ("{\n  a}", "unmatched '{' at position 1"),
        ("x{}", "empty placeholder at position 2"),
        ("{ }", "empty placeholder at position 1"),
        ("{a}}", "unmatched '}' at position 4"),
    ])
    func unbalancedBraces(text: String, expected: String) {
        let error = message { _ = try Template(text) }
        #expect(error.hasPrefix(expected), "\(error)")
    }

    @Test(arguments: [
        ("{none}", "'none' is null in train.jsonl line 7"),
        ("{mixed}", "'mixed' in train.jsonl line 7 is an array with values that are not strings"),
        ("{meta}", "'meta' in train.jsonl line 7 is an object; use one of its fields: {meta.deep}"),
        ("{n.x}", "'n' in train.jsonl line 7 is not an object; it has no field 'x'"),
        (
            "{meta.titel}",
            "train.jsonl line 7 has no field 'meta.titel'; it has meta.deep, meta.title — did you mean {meta.title}?"
        ),
    ])
    func unusableValues(text: String, expected: String) throws {
        let template = try Template(text)
        let error = message { _ = try template.render(row) }
        #expect(error.hasPrefix(expected), "\(error)")
        #expect(message { try template.check(against: row) } == error)
    }

    @Test func unknownFieldsListWhatThereIs() throws {
        let row = Row(["summary": "s", "dialogue": "d"], location: Row.Location(file: "t.csv", number: 2))
        #expect(
            message { _ = try Template("{sumary}").render(row) }
                == "t.csv line 2 has no field 'sumary'; it has dialogue, summary — did you mean {summary}?")
        #expect(
            message { _ = try Template("{xyz}").render(row) }
                == "t.csv line 2 has no field 'xyz'; it has dialogue, summary")
        let bare = Row([:], location: row.location)
        #expect(message { _ = try Template("{x}").render(bare) } == "t.csv line 2 has no field 'x'; it has none")
    }

    @Test func examplesKeepOrderAndPlace() throws {
        let rows = try read("a.csv", "q,a\n1,one\n2,two\n")
        let examples = try examples(from: rows, prompt: Template("{q}="), target: Template("{a}"))
        #expect(examples.map(\.prompt) == ["1=", "2="])
        #expect(examples.map(\.target) == ["one", "two"])
        #expect(examples.map(\.row.number) == [2, 3])
    }

    @Test func emptyTargetsNameTheRow() throws {
        let rows = try read("a.csv", "q,a\n1,one\n2,\" \"\n")
        let error = message { _ = try examples(from: rows, prompt: Template("{q}"), target: Template("{a}")) }
        #expect(error.hasPrefix("the target \"{a}\" is empty for a.csv line 3"), "\(error)")
    }
}
