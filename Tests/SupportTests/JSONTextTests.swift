import Foundation
import Testing

@testable import PEFTSupport

@Suite struct JSONTextTests {
    /// What Python's `json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)` printed.
    @Test func isPythons() {
        let value: JSON = [
            "b": [1, -2.5, true, nil], "a": ["z": [:], "é": []],
            "Z": "tab\t \"q\" \\ \u{8}\u{C}\n\r\u{1}\u{1F} / é 東 🙂 \u{7F}",
            "aa": "", "list": [[1], [], ["k": [["x": 1]]]],
        ]
        let expected = #"""
            {
              "Z": "tab\t \"q\" \\ \b\f\n\r\u0001\u001f / é 東 🙂 ␡",
              "a": {
                "z": {},
                "é": []
              },
              "aa": "",
              "b": [
                1,
                -2.5,
                true,
                null
              ],
              "list": [
                [
                  1
                ],
                [],
                {
                  "k": [
                    {
                      "x": 1
                    }
                  ]
                }
              ]
            }
            """#.replacingOccurrences(of: "␡", with: "\u{7F}")
        #expect(value.text() == expected)
        #expect(JSON.object(["b": [1, 2], "a": 0.1]).text(indent: nil) == #"{"a": 0.1, "b": [1, 2]}"#)
    }

    @Test func numbersAreWrittenAsPythonDoes() {
        let numbers: [(Double, String)] = [
            (1, "1.0"), (0.1, "0.1"), (-0.0, "-0.0"), (1e15, "1000000000000000.0"), (1e16, "1e+16"),
            (1.2e16, "1.2e+16"), (1e22, "1e+22"), (0.0001, "0.0001"), (0.00001, "1e-05"), (1.5e300, "1.5e+300"),
            (123_456_789.125, "123456789.125"), (0.30000000000000004, "0.30000000000000004"),
            (.leastNonzeroMagnitude, "5e-324"),
        ]
        for (number, text) in numbers { #expect(JSON.number(number).text() == text) }
        #expect(JSON.number(.nan).text() == "null" && JSON.number(.infinity).text() == "null")
        #expect(JSON.integer(.min).text() == "-9223372036854775808")
    }

    @Test func accessors() {
        let value: JSON = ["i": 3, "n": 3.0, "f": 3.5, "s": "x", "b": true, "a": [1], "z": nil]
        #expect(value["i"]?.double == 3 && value["n"]?.int == 3 && value["f"]?.int == nil)
        #expect(value["s"]?.string == "x" && value["s"]?.bool == nil && value["b"]?.bool == true)
        #expect(value["a"]?.array == [1] && value["z"] == .null && value["none"] == nil)
        #expect(value["s"]?["x"] == nil && JSON.number(1e300).int == nil && JSON.bool(true).int == nil)
    }

    @Test func repeatedFields() throws {
        let text = Data(#"{"a": 1, "b": {"c": 1, "c": 2}}"#.utf8)
        #expect(try JSON.parse(text, name: "x")["b"] == ["c": 2])
        let error = try #require(throws: PEFTError.self) {
            try JSON.parse(text, name: "x", allowsRepeatedFields: false)
        }
        #expect(error.problem.contains("duplicate field 'c' at byte 23"), "\(error)")
    }

    @Test func errorsNameTheFile() throws {
        let absent = URL(fileURLWithPath: "/nonexistent/a.json")
        #expect(
            try #require(throws: PEFTError.self) { try JSON.read(absent) }.problem.contains("/nonexistent/a.json"))
        let broken = try #require(throws: PEFTError.self) { try JSON.parse(Data("{\"a\": ]".utf8), name: "b.json") }
        #expect(broken.problem.contains("b.json") && broken.problem.contains("byte 6"))
        #expect(throws: PEFTError.self) { try JSON.parse(Data([0x22, 0xFF, 0x22]), name: "c.json") }
    }
}
