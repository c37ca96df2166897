import Foundation
import Support

/// Results on standard output. A run goes on where they can't be written, so that files are still saved, and ends with
/// an error.
enum Results {
    nonisolated(unsafe) private static var failure: Int32?

    /// Whether something couldn't be written, so that more is in vain.
    static var areLost: Bool { failure != nil }

    static func write(_ text: String) {
        guard failure == nil else { return }
        failure = StandardStreams.write(Console.outputIsTerminal ? Console.shown(text) : text, to: STDOUT_FILENO)
    }

    /// The program's exit code, after an error line, if a result was lost: 141 for a pipe whose reader has ended,
    /// as a shell shows for other programs, else 1.
    static func exitCodeIfLost() -> Int32? {
        guard let failure else { return nil }
        Console.error(
            "can't write the result to standard output: \(StandardStreams.reason(failure)); "
                + (failure == ENOSPC ? "free some space or redirect it elsewhere" : "redirect it to a file"))
        return failure == EPIPE ? 128 + SIGPIPE : 1
    }
}

/// Writes a line to standard output. In this module it takes the place of Swift's function, which ignores errors.
func print(_ text: String, terminator: String = "\n") { Results.write(text + terminator) }
