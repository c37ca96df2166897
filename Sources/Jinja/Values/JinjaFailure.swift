import Support

/// What stops a template; the line is known where it is caught.
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

/// What a file may ask of the program: a template is somebody else's code.
enum JinjaLimits {
    /// Expressions inside expressions, blocks inside blocks.
    static let nesting = 120
    /// Operators in a row, such as `a + b + c`.
    static let chain = 400
    /// Macros that call each other.
    static let calls = 100
    /// Lists in lists.
    static let depth = 200
    static let namespaces = 1000
    /// Evaluated expressions, and elements (or 16 bytes) of what they make.
    static let work = 20_000_000
    /// Bytes of a text that is made.
    static let text = 32_000_000
}
