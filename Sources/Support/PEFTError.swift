/// An error that a user can act on: what is wrong, and what to do.
///
/// Everything that a user or a file can cause is reported by this type; the command line prints it as one line.
public struct PEFTError: Error, Equatable, CustomStringConvertible {
    /// What is wrong and where, with the offending value.
    public let problem: String
    /// What to do, if that is known.
    public let remedy: String?

    public init(_ problem: String, remedy: String? = nil) {
        self.problem = problem
        self.remedy = remedy
    }

    public var description: String {
        guard let remedy else { return problem }
        return "\(problem); \(remedy)"
    }
}
