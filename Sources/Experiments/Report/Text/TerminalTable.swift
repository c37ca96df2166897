/// A line of a cell.
struct TerminalCell {
    var text: String
    var isBest = false
    var isMarked = false

    init(_ text: String, isBest: Bool = false) { (self.text, self.isBest) = (text, isBest) }

    func marked(_ isMarked: Bool) -> TerminalCell {
        var cell = self
        cell.isMarked = isMarked
        return cell
    }

    func padded(to width: Int, isText: Bool) -> String {
        let space = String(repeating: " ", count: max(width - TerminalText.width(text), 0))
        let shown = isMarked ? "\u{1B}[1;32m\(text)\u{1B}[0m" : text
        return isText ? shown + space : space + shown
    }
}

/// A column of an aligned table.
struct TerminalColumn {
    /// One line or two.
    var title: [String]
    var importance: Int
    var isText = false
    /// Lines of each row's cell.
    var cells: [[TerminalCell]]

    var width: Int {
        max(
            title.map(TerminalText.width).max() ?? 0,
            cells.flatMap { $0.map { TerminalText.width($0.text) } }.max() ?? 0)
    }

    var longestWord: Int {
        let words = cells.flatMap { $0.flatMap { $0.text.split(separator: " ") } }
        return max(words.map { TerminalText.width(String($0)) }.max() ?? 0, 18)
    }

    mutating func wrap(to width: Int) {
        guard width < self.width else { return }
        cells = cells.map { lines in
            TerminalText.wrapped(lines.map(\.text).joined(separator: " "), width: width, indent: "  ").map {
                TerminalCell($0)
            }
        }
    }
}

extension TerminalColumn {
    /// A column of texts, which is never left out.
    init(title: String, texts: [String]) {
        self.init(
            title: [title], importance: .max, isText: true,
            cells: texts.map { [TerminalCell(TerminalText.printable($0))] })
    }
}

extension [TerminalColumn] {
    private static var gap: Int { 2 }

    var totalWidth: Int { map(\.width).reduce(0, +) + Self.gap * Swift.max(count - 1, 0) }

    /// Terminal columns by which the table is too wide.
    func overhang(_ width: Int) -> Int { Swift.max(totalWidth - width, 0) }

    var leastImportant: Int? {
        indices.filter { self[$0].importance < 100 }.min { self[$0].importance < self[$1].importance }
    }

    /// The titles, aligned at the bottom, and a rule.
    var header: [String] {
        let height = map(\.title.count).max() ?? 0
        let lines = (0..<height).map { line in
            self.line { column in
                let index = line - (height - column.title.count)
                return TerminalCell(index >= 0 ? column.title[index] : "")
            }
        }
        return lines + [String(repeating: "─", count: totalWidth)]
    }

    /// The lines of a row.
    /// - Parameter color: whether the best values are marked.
    func row(_ row: Int, color: Bool = false) -> [String] {
        let height = map { $0.cells[row].count }.max() ?? 1
        return (0..<height).map { line in
            self.line { column in
                let lines = column.cells[row]
                guard line < lines.count else { return TerminalCell("") }
                return lines[line].marked(color && lines[line].isBest)
            }
        }
    }

    func line(cell: (TerminalColumn) -> TerminalCell) -> String {
        var line = ""
        for (index, column) in enumerated() {
            if index > 0 { line += String(repeating: " ", count: Self.gap) }
            line += cell(column).padded(to: column.width, isText: column.isText)
        }
        while line.last == " " { line.removeLast() }
        return line
    }
}

/// Text on a terminal.
enum TerminalText {
    /// Wraps words into lines of at most `width` columns; a longer word gets a line of its own.
    static func wrapped(_ text: String, width: Int, indent: String = "") -> [String] {
        var lines: [String] = []
        var line = ""
        for word in text.split(separator: " ") {
            if line.isEmpty {
                line = String(word)
            } else if self.width(line) + 1 + self.width(String(word)) <= width {
                line += " " + word
            } else {
                lines.append(line)
                line = indent + word
            }
        }
        return line.isEmpty ? lines : lines + [line]
    }

    /// Text that can't steer the terminal: control characters become spaces.
    static func printable(_ text: String) -> String {
        var out = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            switch scalar.properties.generalCategory {
            case .control, .lineSeparator, .paragraphSeparator, .surrogate: out.append(" ")
            // Bidirectional overrides.
            case .format where scalar != "\u{200D}": continue
            default: out.append(scalar)
            }
        }
        return String(out)
    }

    /// Terminal columns a text takes: two for East Asian wide characters and emoji.
    static func width(_ text: String) -> Int {
        text.reduce(0) { sum, character in
            guard let scalar = character.unicodeScalars.first else { return sum }
            let isWide =
                switch scalar.value {
                case 0x1100...0x115F, 0x2E80...0x303E, 0x3041...0xA4CF, 0xAC00...0xD7A3, 0xF900...0xFAFF,
                    0xFE30...0xFE6F, 0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x1F300...0x1FAFF, 0x20000...0x3FFFD:
                    true
                default: false
                }
            return sum + (isWide ? 2 : 1)
        }
    }
}
