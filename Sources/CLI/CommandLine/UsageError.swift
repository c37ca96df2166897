import PEFTSupport

/// An invalid command line, whatever the files contain: an unknown option, a value out of range, mutually exclusive
/// options. The exit code is 64 (`EX_USAGE`); failures of files, models and runs are ``PEFTError``, with exit code 1.
struct UsageError: Error, Equatable, CustomStringConvertible {
    let description: String

    init(_ problem: String, remedy: String? = nil) { description = PEFTError(problem, remedy: remedy).description }
    init(_ error: PEFTError) { description = error.description }
}

/// Runs a check of options; a ``PEFTError`` in it becomes a ``UsageError``.
func checkingOptions<Value>(_ body: () throws -> Value) throws -> Value {
    do { return try body() } catch let error as PEFTError { throw UsageError(error) }
}

/// - Throws: ``UsageError`` if the option's value is below `least`.
func require(_ option: String, _ value: Int?, atLeast least: Int = 1) throws {
    guard let value, value < least else { return }
    throw UsageError("\(option) must be at least \(least) (got \(value))")
}
