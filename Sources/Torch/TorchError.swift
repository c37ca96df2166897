import CTorch
import Foundation
import Support

/// Tensor operations don't throw, so that a model reads like its paper. What goes wrong in libtorch is kept
/// until the enclosing ``withTorchErrors(_:)`` ends, which throws the first failure; until then the failed
/// results are empty tensors. Outside such a scope a failure is a programming error and ends the program.
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
        // libtorch's out-of-memory message names its source file; users need the fact alone.
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

/// Runs `body` and throws the first failure that a tensor operation in it had.
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
        // A failed tensor operation comes first: what is thrown later follows from it.
        throw entry.first ?? error
    }
    if let error = entry.first { throw error }
    return result
}

/// Throws the first failure so far in the enclosing ``withTorchErrors(_:)``: for loops that read numbers back, whose
/// arrays would otherwise be shorter than they expect.
public func checkTorchErrors() throws {
    if let error = FailureLog.current.first { throw error }
}

/// Makes the enclosing ``withTorchErrors(_:)`` fail, where a model finds out in its forward pass that it can't go on.
public func reportFailure(_ error: PEFTError) {
    let entry = FailureLog.current
    if entry.first == nil { entry.first = error }
}

/// Boxes what a C function returned, or records why it returned nothing.
func wrap(_ pointer: OpaquePointer?) -> Tensor {
    if let pointer { return Tensor(owning: pointer) }
    FailureLog.record(String(cString: ct_last_error()))
    return Tensor(owning: ct_undefined())
}

func check(_ status: Int32) {
    if status != 0 { FailureLog.record(String(cString: ct_last_error())) }
}
