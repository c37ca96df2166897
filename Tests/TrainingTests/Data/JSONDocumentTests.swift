import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import Training

/// Values that JSON files hold besides one object a line, and the rows that they mean.
@Suite struct JSONDocumentTests {
    private let both: [[String: JSON]] = [["q": "a", "n": 1], ["q": "b", "n": 2]]

    @Test(arguments: [
        #"{"q": ["a", "b"], "n": [1, 2]}"#,
        "{\n  \"q\": [\"a\", \"b\"],\n  \"n\": [1, 2]\n}\n",
        #"{"q": {"0": "a", "1": "b"}, "n": {"1": 2, "0": 1}}"#,
        #"{"1": {"q": "b", "n": 2}, "0": {"q": "a", "n": 1}}"#,
        #"{"columns": ["q", "n"], "index": [0, 1], "data": [["a", 1], ["b", 2]]}"#,
        #"{"version": "1.0", "data": [{"q": "a", "n": 1}, {"q": "b", "n": 2}]}"#,
        "{\"data\": [\n{\"q\": \"a\", \"n\": 1},\n{\"q\": \"b\", \"n\": 2}\n]}",
        #"{"anything": [{"q": "a", "n": 1}, {"q": "b", "n": 2}]}"#,
        #"{"train": [{"q": "a", "n": 1}, {"q": "b", "n": 2}], "license": "CC"}"#,
        "{\n  \"q\": \"a\",\n  \"n\": 1\n}\n{\n  \"q\": \"b\",\n  \"n\": 2\n}\n",
        "[{\"q\": \"a\", \"n\": 1},\n {\"q\": \"b\", \"n\": 2}]",
    ])
    func rowsOfAFile(text: String) throws {
        #expect(try read("a.json", text).map(\.fields) == both)
        #expect(try read("a.json", "\u{FEFF}" + text).map(\.fields) == both)
        #expect(try read("a.json", text, limit: 1).map(\.fields) == [both[0]])
        // A line of .jsonl is a row; what goes on in the next line is not.
        if text.contains("\n") || text.hasPrefix("[") {
            #expect(try read("a.jsonl", text).map(\.fields) == both)
        }
    }

    @Test func oneLineOfJSONLinesIsOneRow() throws {
        #expect(
            try read("a.jsonl", #"{"q": ["a", "b"], "n": [1, 2]}"#).map(\.fields) == [
                ["q": ["a", "b"], "n": [1, 2]]
            ])
    }

    @Test func oneObjectIsOneRow() throws {
        for text in [
            #"{"text": "a", "labels": ["x", "y"]}"#, "{\n\"text\": \"a\"\n}",
            #"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}"#,
            #"{"conversations": [{"from": "human", "value": "Hi"}], "id": "7"}"#,
        ] {
            #expect(try read("a.json", text).count == 1)
        }
    }

    @Test func rowsWithoutNames() throws {
        let rows = try read("a.json", #"[["how much", "balance"], ["send", "transfer"]]"#)
        #expect(rows.map(\.fields) == [["0": "how much", "1": "balance"], ["0": "send", "1": "transfer"]])
    }

    @Test func placesAreThoseOfTheFile() throws {
        #expect(try read("a.json", #"{"q": ["a", "b"]}"#)[1].location.description.hasSuffix("a.json row 2"))
        #expect(
            try read("a.json", #"{"data": [{"q": 1}, {"q": 2}]}"#)[1].location.description.hasSuffix(
                "a.json:data element 2"))
        #expect(try read("a.jsonl", "{\n\"q\": 1}\n\n{\"q\":\n2}").map(\.location.number) == [1, 4])
    }

    /// The order of keys counts for chats, and rows of columns keep it too.
    @Test func textIsKept() throws {
        let text = #"{"z": [{"b": 1, "a": 2}, "é"], "m": [[{"role": "user", "content": "Hi"}], []]}"#
        try withTemporaryFile("a.json", text.utf8) { (file: URL) throws in
            let rows = try DataSet.read(file, keepsText: true)
            #expect(rows[0].text == #"{"z": {"b": 1, "a": 2}, "m": [{"role": "user", "content": "Hi"}]}"#)
            #expect(rows[1].text == #"{"z": "é", "m": []}"#)
        }
    }

    private let splits = #"{"train": [{"q": "a"}, {"q": "b"}], "test": [], "pairs": [["x", "y"]]}"#

    @Test func severalListsAskForOne() throws {
        let error = message { _ = try read("a.json", splits) }
        #expect(
            error.hasPrefix("a.json has the lists 'train' (2), 'test' (0) and 'pairs' (1); choose one, such as"))
        #expect(error.hasSuffix("a.json:train"))
        let columns = message { _ = try read("a.json", #"{"q": ["a", "b"], "n": [1]}"#) }
        #expect(columns.hasPrefix("a.json has the lists 'q' (2) and 'n' (1)") && columns.contains("equally long"))
        let frames = message { _ = try read("a.json", #"{"train": {"q": ["a"]}, "test": {"q": ["b"]}}"#) }
        #expect(frames.hasPrefix("a.json has the lists 'train' (1) and 'test' (1)"))
    }

    @Test func aListIsChosenAfterAColon() throws {
        try withTemporaryFile("a.json", splits.utf8) { (file: URL) throws in
            func rows(_ list: String) throws -> [Row] { try DataSet.read(DataSource("\(file.path):\(list)")) }
            #expect(try rows("train").map(\.fields) == [["q": "a"], ["q": "b"]])
            #expect(try rows("train")[1].location.description.hasSuffix("a.json:train element 2"))
            #expect(try rows("pairs").map(\.fields) == [["0": "x", "1": "y"]])
            #expect(message { _ = try rows("test") }.hasPrefix("a.json:test has no rows"))
            #expect(
                message { _ = try rows("trian") }.contains(
                    "a.json has no list 'trian'; it has train, test, pairs — did you mean 'train'?"))
        }
        try withTemporaryFile("b.json", #"{"train": {"q": ["a", "b"]}, "test": 3}"#.utf8) { (file: URL) throws in
            #expect(try DataSet.read(DataSource("\(file.path):train")).map(\.fields) == [["q": "a"], ["q": "b"]])
            #expect(
                message { _ = try DataSet.read(DataSource("\(file.path):test")) }.contains("b.json:test is a number"))
        }
    }

    @Test(arguments: [
        ("a.json", "{\n\"a\": 1,\n}", "line 3 is not valid JSON: expected a field name in double quotes, found '}'"),
        ("a.json", "{\n\"a\": 1", "line 2 is not valid JSON: expected ',' or '}' after a value, found the end"),
        (
            "a.jsonl", "{\"a\": 1\n{\"a\": 2}",
            "line 1 is not valid JSON: expected ',' or '}' after a value, found the end"
        ),
        ("a.jsonl", "{\"a\": \"x\n{\"a\": 2}", "line 1 is not valid JSON: unterminated string"),
        ("a.jsonl", "[1]\n[2]", "line 1 is an array; each row must be"),
        ("a.json", "[[{\"role\": \"user\"}]]", "element 1 is an array; each row must be"),
        ("a.jsonl", "{\n\"a\": 1}\n3\n", "line 3 is a number"),
    ])
    func mistakesSayWhere(name: String, text: String, expected: String) {
        let error = message { _ = try read(name, text) }
        #expect(error.hasPrefix("\(name) \(expected)"), "\(error)")
    }
}
