import ArgumentParser

@testable import PEFTCommand

/// How texts are shortened for display.
struct DisplayOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Maximum number of characters of a displayed text.", valueName: "n"))
    var maxCharacters = 80

    /// - Throws: ``UsageError`` for a value below 1.
    func shortened(_ text: String) throws -> String {
        try require("--max-characters", maxCharacters)
        return text.count > maxCharacters ? text.prefix(maxCharacters) + "…" : text
    }
}
