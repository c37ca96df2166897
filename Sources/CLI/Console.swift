import Foundation
import Support

/// Output to people: results on standard output, everything else on standard error.
enum Console {
    /// Whether `--quiet` was given.
    nonisolated(unsafe) static var isQuiet = false
    static var inputIsTerminal: Bool { isatty(STDIN_FILENO) == 1 }
    static var errorIsTerminal: Bool { isatty(STDERR_FILENO) == 1 }
    static var outputIsTerminal: Bool { isatty(STDOUT_FILENO) == 1 }
    /// Colour where a terminal shows it and `NO_COLOR` isn't set.
    static var usesColour: Bool { outputIsTerminal && ProcessInfo.processInfo.environment["NO_COLOR"] == nil }

    /// A line about what has no effect or was surely not meant; the command goes on.
    static func warn(_ text: String) { note("peft: warning: " + shownInOneLine(text)) }
    static func error(_ text: String) { note("peft: " + shownInOneLine(text)) }
    /// Writes a line to standard error. A note that can't be written is lost and ends nothing.
    static func note(_ text: String) { progress(shown(text) + "\n", waiting: 1000) }

    /// Writes to standard error, unless nobody reads it within so many milliseconds.
    static func progress(_ text: String, waiting milliseconds: Int32 = 0) {
        _ = StandardStreams.write(text, to: STDERR_FILENO, .milliseconds(milliseconds))
    }

    /// A line of standard input without its end; `nil` at the end, and where it can't be read.
    static func readLine() -> String? { Swift.readLine() }

    /// Columns of the terminal, 120 where that isn't known.
    static var width: Int {
        var size = winsize()
        guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 40 else { return 120 }
        return Int(size.ws_col)
    }

    static func bytes(_ count: Int) -> String {
        let units = ["B", "kB", "MB", "GB", "TB"]
        var value = Double(count)
        var unit = 0
        while value >= 1000, unit < units.count - 1 {
            value /= 1000
            unit += 1
        }
        return unit == 0 ? "\(count) B" : String(format: value < 10 ? "%.2f %@" : "%.0f %@", value, units[unit])
    }

    static func grouped(_ number: Int) -> String {
        var digits = String(abs(number))
        var parts: [String] = []
        while digits.count > 3 {
            parts.insert(String(digits.suffix(3)), at: 0)
            digits.removeLast(3)
        }
        return (number < 0 ? "-" : "") + ([digits] + parts).joined(separator: ",")
    }

    static func duration(_ seconds: Double) -> String {
        guard seconds.isFinite, seconds < 1e9 else { return "–" }
        let whole = Int(seconds.rounded())
        if whole < 60 { return "\(whole) s" }
        if whole < 3600 { return String(format: "%d:%02d min", whole / 60, whole % 60) }
        return String(format: "%d:%02d h", whole / 3600, whole % 3600 / 60)
    }
}

/// One line that is redrawn on a terminal; plain lines from time to time elsewhere.
final class ProgressDisplay {
    private let isTerminal = Console.errorIsTerminal
    private let isQuiet: Bool
    private var lastDrawn = ContinuousClock.now - .seconds(3600)
    private var drawnWidth = 0

    init(isQuiet: Bool) { self.isQuiet = isQuiet || Console.isQuiet }

    /// Shows `text`, with a bar for `share` on a terminal. Elsewhere a line is written every 20 seconds at most.
    func update(share: Double, _ text: String) { update(share: share, [ProgressPart(text)]) }

    /// The same, of parts that may be left out where the terminal is narrow.
    func update(share: Double, _ parts: [ProgressPart]) {
        guard !isQuiet else { return }
        let interval: Duration = isTerminal ? .milliseconds(100) : .seconds(20)
        guard share >= 1 || ContinuousClock.now - lastDrawn >= interval else { return }
        lastDrawn = .now
        guard isTerminal else { return Console.note(ProgressPart.joined(parts)) }
        var size = winsize()
        let isKnown = ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 30
        let line = ProgressPart.line(
            parts.map { .init(Console.shownInOneLine($0.text), rank: $0.rank) }, share: share,
            width: isKnown ? Int(size.ws_col) - 1 : 79)
        let padding = String(repeating: " ", count: max(0, drawnWidth - line.count))
        drawnWidth = line.count
        Console.progress("\r" + line + padding)
    }

    /// Ends the redrawn line, and writes `text` below it.
    func finish(_ text: String? = nil) {
        guard !isQuiet else { return }
        if isTerminal, drawnWidth > 0 {
            Console.progress("\r" + String(repeating: " ", count: drawnWidth) + "\r")
            drawnWidth = 0
        }
        lastDrawn = ContinuousClock.now - .seconds(3600)
        if let text { Console.note(text) }
    }
}
