/// An error that a user can act on: what is wrong, and what to do.
///
/// Everything that a user or a file can cause is reported by this type; the command line prints it as one line.
public struct PEFTError: Error, Equatable, CustomStringConvertible {
    /// What is wrong and where, with the offending value.
    public let problem: String
    /// What to do, if that is known.
    public let remedy: String?
    /// Whether settings are missing or contradict each other, whatever the files contain. The exit code of the command
    /// line is then 64 (`EX_USAGE`) in place of 1.
    public let isUsage: Bool

    /// - Parameters:
    ///   - problem: what is wrong, with the offending value.
    ///   - remedy: what to do about it.
    ///   - isUsage: whether the command line is at fault.
    public init(_ problem: String, remedy: String? = nil, isUsage: Bool = false) {
        self.problem = problem
        self.remedy = remedy
        self.isUsage = isUsage
    }

    /// The problem and the remedy, in one line.
    public var description: String {
        guard let remedy else { return problem }
        return "\(problem); \(remedy)"
    }
}
