import Foundation
import PEFTSupport

/// Terminal output: results on standard output, everything else on standard error.
enum Console {
    /// Whether `--quiet` was given.
    nonisolated(unsafe) static var isQuiet = false
    /// Whether notes and progress are left to another process of the same job.
    nonisolated(unsafe) static var isMuted = false
    static var inputIsTerminal: Bool { isatty(STDIN_FILENO) == 1 }
    static var errorIsTerminal: Bool { isatty(STDERR_FILENO) == 1 }
    static var outputIsTerminal: Bool { isatty(STDOUT_FILENO) == 1 }
    /// Whether standard output is a terminal and `NO_COLOR` is not set.
    static var usesColor: Bool { outputIsTerminal && ProcessInfo.processInfo.environment["NO_COLOR"] == nil }

    /// A line about a setting without effect or a likely mistake; the command continues.
    static func warn(_ text: String) { note("warning: " + shownInOneLine(text)) }
    static func error(_ text: String) { write("error: " + shownInOneLine(text)) }
    /// Writes a line to standard error. Failures to write are ignored.
    static func note(_ text: String) {
        if !isMuted { write(text) }
    }

    private static func write(_ line: String) { progress(shown(line) + "\n", waiting: 1000) }

    /// Writes to standard error, and gives up if it is not read within `milliseconds`.
    static func progress(_ text: String, waiting milliseconds: Int32 = 0) {
        _ = StandardStreams.write(text, to: STDERR_FILENO, .milliseconds(milliseconds))
    }

    /// A line of standard input without its line break; `nil` at the end of input or after a read error.
    static func readLine() -> String? { Swift.readLine() }

    /// Width of the terminal in columns, 120 if unknown.
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

    static func grouped(_ number: Int) -> String { PEFTSupport.grouped(number) }

    static func duration(_ seconds: Double) -> String {
        guard seconds.isFinite, seconds < 1e9 else { return "–" }
        let whole = Int(seconds.rounded())
        if whole < 60 { return "\(whole) s" }
        if whole < 3600 { return String(format: "%d:%02d min", whole / 60, whole % 60) }
        return String(format: "%d:%02d h", whole / 3600, whole % 3600 / 60)
    }
}

/// A progress line: redrawn in place on a terminal, plain lines at intervals elsewhere.
final class ProgressDisplay {
    private let isTerminal = Console.errorIsTerminal
    private let isQuiet: Bool
    private var lastDrawn = ContinuousClock.now - .seconds(3600)
    private var drawnWidth = 0

    init(isQuiet: Bool) { self.isQuiet = isQuiet || Console.isQuiet }

    /// Shows `text`, with a progress bar for `share` on a terminal; elsewhere writes at most one line every 20 seconds.
    func update(share: Double, _ text: String) { update(share: share, [ProgressPart(text)]) }

    /// The same for several parts, of which a narrow terminal shows the most important ones.
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

    /// Clears the progress line and writes `text`.
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
