import CTorch
import Foundation
import PEFTSupport

/// Tensor operations don't throw, so that a model reads like its paper. An error in libtorch is recorded until the
/// enclosing ``withTorchErrors(_:)`` returns, which throws the first one; until then failed operations return empty
/// tensors. Outside such a scope an error is a programming error and ends the program.
enum FailureLog {
    final class Entry { var first: PEFTError?; var depth = 0 }
    private static let key = "swift-peft.torch-failures"

    /// Per thread, like libtorch's own state.
    static var current: Entry {
        if let entry = Thread.current.threadDictionary[key] as? Entry { return entry }
        let entry = Entry()
        Thread.current.threadDictionary[key] = entry
        return entry
    }

    static func record(_ message: String) {
        let entry = current
        // libtorch's out-of-memory message includes its source file; keep only the first line.
        let text = message.split(separator: "\n").first.map(String.init) ?? message
        let error =
            text.contains("allocate memory")
            ? PEFTError(
                "not enough memory: \(text)", remedy: "use smaller batches, shorter sequences or a smaller model")
            : PEFTError(text)
        guard entry.depth > 0 else { fatalError("libtorch: \(error)") }
        if entry.first == nil { entry.first = error }
    }
}

/// Runs `body` and throws the first error of a tensor operation in it.
/// - Throws: what `body` throws, or a ``PEFTError`` with libtorch's message.
public func withTorchErrors<Result>(_ body: () throws -> Result) throws -> Result {
    let entry = FailureLog.current
    let outer = entry.first
    entry.first = nil
    entry.depth += 1
    defer {
        entry.depth -= 1
        entry.first = outer
    }
    let result: Result
    do { result = try body() } catch {
        // The first tensor error comes first: a later error follows from it.
        throw entry.first ?? error
    }
    if let error = entry.first { throw error }
    return result
}

/// Throws the first recorded error of the enclosing ``withTorchErrors(_:)``, for loops that read arrays back, which
/// would otherwise be shorter than expected.
package func checkTorchErrors() throws {
    if let error = FailureLog.current.first { throw error }
}

/// Records an error that a model detects in its forward pass, for the enclosing ``withTorchErrors(_:)`` to throw.
public func reportFailure(_ error: PEFTError) {
    let entry = FailureLog.current
    if entry.first == nil { entry.first = error }
}

/// Wraps a C function's result, or records its error.
func wrap(_ pointer: OpaquePointer?) -> Tensor {
    if let pointer { return Tensor(owning: pointer) }
    FailureLog.record(String(cString: ct_last_error()))
    return Tensor(owning: ct_undefined())
}

func check(_ status: Int32) {
    if status != 0 { FailureLog.record(String(cString: ct_last_error())) }
}
