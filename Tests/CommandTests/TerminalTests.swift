import Foundation
import PEFTSupport
import Testing
import Training

@testable import PEFTCommand

/// What a terminal is shown.
@Suite struct TerminalTests {
    private static let parts: [ProgressPart] = [
        .init("step 120/4000"), .init("epoch 0.4", rank: 4), .init("loss 2.345", rank: 2),
        .init("12345 tokens/s", rank: 3), .init("1.23 GB", rank: 5), .init("12:34 min left", rank: 1),
    ]

    /// The time left is the last thing to go but for the step.
    @Test(arguments: [120, 100, 80, 79, 60, 50, 40, 30, 20])
    func progressFitsAndKeepsWhatMatters(width: Int) {
        let line = ProgressPart.line(Self.parts, share: 0.5, width: width)
        #expect(line.count <= width, "\(line)")
        #expect(line.contains("step 120/4000"))
        #expect(line.contains("12:34 min left") == (width >= 40), "\(line)")
        if width >= 40 { #expect(line.hasPrefix("━")) }
    }

    @Test func theBarShrinksBeforeAnythingGoes() {
        let text = ProgressPart.joined(Self.parts)
        #expect(
            ProgressPart.line(Self.parts, share: 0, width: text.count + 9) == String(repeating: "╌", count: 8) + " "
                + text)
        #expect(!ProgressPart.line(Self.parts, share: 0, width: text.count + 8).contains("1.23 GB"))
        #expect(ProgressPart.line(Self.parts, share: 1, width: 500) == String(repeating: "━", count: 24) + " " + text)
        #expect(ProgressPart.line(Self.parts, share: .nan, width: 500).hasSuffix(text))
    }

    @Test func controlCharactersAreSpelledOut() {
        #expect(Console.shown("a\u{1B}[31mb\u{7}\u{9B}c\u{7F}") == "a\\u{1b}[31mb\\u{7}\\u{9b}c\\u{7f}")
        #expect(Console.shown("tab\tline\nend\r\nover\rwritten") == "tab\tline\nend\r\nover\\u{d}written")
        #expect(Console.shown("Grüße 你好 👋🏽") == "Grüße 你好 👋🏽")
        // The program's own emphasis stays.
        #expect(Console.shown("\u{1B}[1;32mbest\u{1B}[0m \u{1B}[2J") == "\u{1B}[1;32mbest\u{1B}[0m \\u{1b}[2J")
        #expect(Console.shownInOneLine("a\nb") == "a\\u{a}b")
    }

    @Test func numbersOfThings() {
        #expect(counted(1, "row") == "1 row")
        #expect(counted(0, "row") == "0 rows")
        #expect(counted(1_234_567, "row") == "1,234,567 rows")
        #expect(counted(2, "entry", plural: "entries") == "2 entries")
        #expect(counted(-1000, "step") == "-1,000 steps")
    }

    @Test func columnsKeepTheOrderOfTheFile() {
        #expect(RowColumns.keys(#"{"b": {"x": [1, "c:"]}, "a\"q" : "d", "e": [{"f": 1}]}"#) == ["b", "a\"q", "e"])
        #expect(RowsOutput.name("label", besides: ["id"]) == "label")
        #expect(RowsOutput.name("label", besides: ["label"]) == "predicted_label")
    }

    /// Every option is on its page of help once, and no option of a method has the name of a command's own.
    @Test func pagesOfHelpHoldEveryOption() throws {
        for command in Peft.configuration.subcommands {
            let table = try OptionTable(command)
            let own = table.options.filter { !$0.isMethods }
            let names = own.flatMap(\.names)
            #expect(Set(names).count == names.count, "\(table.command)")
            let shown = HelpSections.of(table).flatMap(\.options).filter { !$0.isMethods }
            #expect(shown.count == own.count, "\(table.command)")
            #expect(own.allSatisfy(shown.contains), "\(table.command)")
            #expect(
                Set(names).isDisjoint(with: table.options.filter(\.isMethods).flatMap(\.names)), "\(table.command)")
        }
    }

    /// Names of other programs lead to options that exist.
    @Test func aliasesNameOptions() throws {
        let tables = try Peft.configuration.subcommands.map { try OptionTable($0) }
        for option in OptionAliases.allOptions {
            #expect(tables.contains { $0["--\(option)"] != nil }, "\(option)")
        }
    }
}
