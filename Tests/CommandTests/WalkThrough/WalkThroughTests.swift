import ArgumentParser
import Testing

@testable import PEFTCommand

/// The option that CONTRIBUTING adds.
@Suite struct WalkThroughTests {
    /// A command that accepts the option, as one line declares it.
    private struct Show: ParsableCommand {
        @OptionGroup var display: DisplayOptions
        @Argument var text: String
    }

    /// The option is parsed, changes the result, and is on the help page.
    @Test func anOptionIsParsedAndActs() throws {
        let command = try Show.parse(["--max-characters", "3", "abcdef"])
        #expect(try command.display.shortened(command.text) == "abc…")
        #expect(try Show.parse(["abcdef"]).display.shortened("abcdef") == "abcdef")
        let wrong = try Show.parse(["--max-characters", "0", "abcdef"])
        #expect(throws: UsageError("--max-characters must be at least 1 (got 0)")) {
            try wrong.display.shortened("a")
        }
        let table = try OptionTable(Show.self)
        #expect(table["--max-characters"]?.defaultValue == "80")
        let page = HelpPage(table).text()
        #expect(page.contains("--max-characters <n>") && page.contains("Maximum number of characters"))
    }
}
