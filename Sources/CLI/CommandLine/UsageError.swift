import Support

/// A command line that is wrong whatever the files hold: an unknown option, a value out of range, options that exclude
/// each other. The program ends with exit code 64; failures of files, models and runs are ``PEFTError`` and end with 1.
struct UsageError: Error, Equatable, CustomStringConvertible {
    let description: String

    init(_ problem: String, remedy: String? = nil) { description = PEFTError(problem, remedy: remedy).description }
    init(_ error: PEFTError) { description = error.description }
}

/// Runs what judges options by themselves: a ``PEFTError`` in it becomes a ``UsageError``.
func checkingOptions<Value>(_ body: () throws -> Value) throws -> Value {
    do { return try body() } catch let error as PEFTError { throw UsageError(error) }
}

/// - Throws: ``UsageError`` if a count that an option gives is below `least`.
func require(_ option: String, _ value: Int?, atLeast least: Int = 1) throws {
    guard let value, value < least else { return }
    throw UsageError("\(option) must be at least \(least) (got \(value))")
}
