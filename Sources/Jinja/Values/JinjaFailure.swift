import PEFTSupport

/// An error in a template; the line is added where it is caught.
struct JinjaFailure: Error {
    let message: String
    let remedy: String?
    var line: Int?

    init(_ message: String, remedy: String? = nil, line: Int? = nil) {
        (self.message, self.remedy, self.line) = (message, remedy, line)
    }

    func error(in name: String) -> PEFTError {
        PEFTError("\(name)\(line.map { " line \($0)" } ?? ""): \(message)", remedy: remedy)
    }
}

/// Limits for templates, which are untrusted code.
enum JinjaLimits {
    /// Nesting depth of expressions and blocks.
    static let nesting = 120
    /// Length of operator chains such as `a + b + c`.
    static let chain = 400
    /// Depth of macro calls.
    static let calls = 100
    /// Nesting depth of lists.
    static let depth = 200
    static let namespaces = 1000
    /// Evaluated expressions plus elements (or 16-byte units) of their results.
    static let work = 20_000_000
    /// Bytes of a string.
    static let text = 32_000_000
}
