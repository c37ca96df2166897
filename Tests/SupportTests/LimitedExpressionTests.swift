import Foundation
import PEFTSupport
import Testing

/// Expressions that would take exponential time end in an error; ordinary ones find what they always found.
@Suite struct LimitedExpressionTests {
    @Test(arguments: ["(a+)+b", "(a|aa)+b", "((a*)*)*b", "(.*)*(.*)*(.*)*x"])
    func exponentialTimeIsRejected(pattern: String) throws {
        let expression = try LimitedExpression(pattern)
        let error = #expect(throws: PEFTError.self) {
            try expression.ranges(in: String(repeating: "a", count: 60) + "!")
        }
        #expect(error?.description.contains("takes too many steps") == true)
    }

    @Test func longTextsAreSearchedToTheirEnd() throws {
        let text = String(repeating: "word 12 ", count: 50_000)
        let expression = try LimitedExpression(#"\p{L}+|\p{N}{1,3}|\s+(?!\S)|\s+"#)
        let ranges = try expression.ranges(in: text)
        #expect(ranges.count == 200_000 && ranges.last == NSRange(location: text.utf16.count - 1, length: 1))
        #expect(try expression.ranges(in: text, most: 2) == Array(ranges.prefix(2)))
    }

    @Test func matchesSaysWhetherThereIsOne() throws {
        let expression = try LimitedExpression("^(?:.*\\.q)$")
        #expect(try expression.matches("layer.0.q") && !expression.matches("layer.0.k"))
        #expect(throws: (any Error).self) { try LimitedExpression("(") }
    }
}
