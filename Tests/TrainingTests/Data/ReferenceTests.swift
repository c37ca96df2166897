import Foundation
import Testing

@testable import Training

@Suite struct ReferenceTests {
    @Test func rowsThatShareAPromptBecomeOne() {
        let rows = [("a", "1"), ("b", "2"), ("a", "3")].enumerated().map { number, texts in
            Example(prompt: texts.0, target: texts.1, row: .init(file: "rows.csv", number: number + 1))
        }
        let grouped = Example.groupedByPrompt(rows)
        #expect(grouped.map(\.prompt) == ["a", "b"])
        #expect(grouped.map(\.references) == [["1", "3"], ["2"]])
        #expect(grouped.map(\.row.number) == [1, 2])
    }

    @Test func aTextIsOneRowPerLine() throws {
        let text = "One.\r\n\n  \nTwo {x}, \"y\".\n"
        let rows = try read("text.txt", text)
        #expect(rows.map { $0["text"] } == [.string("One."), .string("Two {x}, \"y\".")])
        #expect(rows.map(\.location.number) == [1, 4])
        #expect(try read("text.txt", text, limit: 1).count == 1)
    }
}
