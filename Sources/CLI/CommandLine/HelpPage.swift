import PEFTSupport

/// The `--help` page of a command, at most 80 columns wide, common options first.
struct HelpPage {
    private let table: OptionTable
    private static let width = 80
    /// Column at which the help of an option starts.
    private static let indent = 28

    init(_ table: OptionTable) { self.table = table }

    func text() -> String {
        var parts = [Self.wrap(table.abstract, first: "", rest: ""), usage]
        let discussion = Self.reflow(table.discussion)
        if !discussion.isEmpty { parts.append(discussion) }
        for section in HelpSections.of(table) where !section.options.isEmpty {
            parts.append((["\(section.title):"] + section.options.map(Self.entry)).joined(separator: "\n"))
        }
        if table.takesMethodOptions {
            parts.append(
                Self.wrap(
                    "Method options, such as --rank, differ by method: see peft methods and peft methods NAME.",
                    first: "", rest: ""))
        }
        return parts.joined(separator: "\n\n")
    }

    private var usage: String {
        var words = ["peft", table.command]
        for option in table.options where option.kind == .positional {
            let name = "<\(option.valueName)>" + (option.isRepeating ? " …" : "")
            words.append(option.isOptional ? "[\(name)]" : name)
        }
        for option in table.options where option.kind == .option && !option.isOptional {
            words.append("\(option.names[0]) <\(option.valueName)>")
        }
        return Self.wrap((words + ["[options]"]).joined(separator: " "), first: "Usage: ", rest: "         ")
    }

    private static func entry(_ option: OptionTable.Option) -> String {
        let names = option.names.sorted { a, b in
            // The short name first, then long names by length.
            a.hasPrefix("--") == b.hasPrefix("--") ? a.count < b.count : b.hasPrefix("--")
        }
        var label = "  " + (option.kind == .positional ? "<\(option.valueName)>" : names.joined(separator: ", "))
        if option.kind == .option { label += " <\(option.valueName)>" }
        var help = option.help
        if let value = option.defaultValue, !value.isEmpty, option.kind == .option {
            help += (help.isEmpty ? "" : " ") + "(default: \(value))"
        }
        let margin = String(repeating: " ", count: indent)
        guard label.count < indent - 1 else { return label + "\n" + wrap(help, first: margin, rest: margin) }
        return wrap(help, first: label.padded(to: indent), rest: margin)
    }

    /// Wraps text to lines of at most `width` columns.
    static func wrap(_ text: String, first: String, rest: String, width: Int = width) -> String {
        var lines: [String] = []
        var line = first
        var isEmpty = true
        for word in text.split(whereSeparator: { $0 == " " || $0 == "\n" }) {
            if !isEmpty, line.count + 1 + word.count > width {
                lines.append(line)
                (line, isEmpty) = (rest, true)
            }
            line += (isEmpty ? "" : " ") + word
            isEmpty = false
        }
        lines.append(line)
        return lines.joined(separator: "\n")
    }

    /// Reflows paragraphs to the page's width. Command lines keep their line breaks; long ones continue with `\`.
    static func reflow(_ text: String) -> String {
        var blocks: [String] = []
        var paragraph: [String] = []
        func flush() {
            if !paragraph.isEmpty { blocks.append(wrap(paragraph.joined(separator: " "), first: "", rest: "")) }
            paragraph = []
        }
        var command = ""
        for line in text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init) {
            let isCommand = !command.isEmpty || isExample(line)
            guard isCommand else {
                if line.isEmpty {
                    flush()
                    blocks.append("")
                } else {
                    paragraph.append(line)
                }
                continue
            }
            flush()
            let part = line.drop { $0 == " " }
            command +=
                (command.isEmpty ? "" : " ")
                + (part.hasSuffix("\\") ? part.dropLast() : part)
                .trimmingSuffix { $0 == " " }
            guard !line.hasSuffix("\\") else { continue }
            blocks.append(broken(command))
            command = ""
        }
        flush()
        return blocks.joined(separator: "\n")
    }

    private static func isExample(_ line: String) -> Bool { line.hasPrefix("peft ") || line.hasPrefix("echo ") }

    /// Breaks a long command into lines joined by `\`.
    private static func broken(_ command: String) -> String {
        guard command.count + 2 > width else { return "  " + command }
        var lines: [String] = []
        var line = "  "
        for word in words(command) {
            // An option stays on one line with its value.
            if line.count > 4, line.count + word.count + 3 > width {
                lines.append(line + " \\")
                line = "    " + word
            } else {
                line += (line.count == 2 ? "" : " ") + word
            }
        }
        return (lines + [line]).joined(separator: "\n")
    }

    /// The shell words of a command, an option and its value as one.
    private static func words(_ command: String) -> [String] {
        var words = [""]
        var isQuoted = false
        for character in command {
            if character == "'" { isQuoted.toggle() }
            if character == " ", !isQuoted { words.append("") } else { words[words.count - 1].append(character) }
        }
        var result: [String] = []
        for word in words where !word.isEmpty {
            if let last = result.last, last.hasPrefix("-"), !last.contains(" "), !word.hasPrefix("-") {
                result[result.count - 1] += " " + word
            } else {
                result.append(word)
            }
        }
        return result
    }
}

extension StringProtocol {

    func trimmingSuffix(while predicate: (Character) -> Bool) -> String {
        var end = endIndex
        while end > startIndex, predicate(self[index(before: end)]) { end = index(before: end) }
        return String(self[..<end])
    }
}
