/// An error that a user can act on: what was wrong and where, and what would be right.
///
/// Everything a user or a file can cause ends in one of these; the command line prints it as one line.
public struct PEFTError: Error, Equatable, CustomStringConvertible {
    /// What was wrong, and where.
    public let problem: String
    /// What would be right, if that is known.
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
