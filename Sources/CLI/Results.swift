import Foundation
import PEFTSupport

/// Results on standard output. After a failed write the run continues, so that its files are saved, and then exits with
/// an error.
enum Results {
    nonisolated(unsafe) private static var failure: Int32?

    /// Whether a write has failed; later ones are skipped.
    static var areLost: Bool { failure != nil }

    static func write(_ text: String) {
        guard failure == nil else { return }
        failure = StandardStreams.write(Console.outputIsTerminal ? Console.shown(text) : text, to: STDOUT_FILENO)
    }

    /// Returns the exit code if a result was lost: 141 (128 + `SIGPIPE`) for a closed pipe, silently, since its reader
    /// has seen enough (`peft methods | head`); else 1 with an error.
    static func exitCodeIfLost() -> Int32? {
        guard let failure else { return nil }
        guard failure != EPIPE else { return 128 + SIGPIPE }
        Console.error(
            "can't write the result to standard output: \(StandardStreams.reason(failure)); "
                + (failure == ENOSPC
                    ? "free some space or redirect the output elsewhere" : "redirect the output to a file"))
        return 1
    }
}

/// Writes a line to standard output. Shadows Swift's `print` in this module, which ignores errors.
func print(_ text: String, terminator: String = "\n") { Results.write(text + terminator) }
