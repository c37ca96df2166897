/// Parses statements. The grammar is Jinja's; features that transformers' environment lacks, or that are not
/// supported here, are rejected by name.
struct Parser {
    private let tokens: [Token]
    private var place = 0
    /// Nesting depth of the loops that `break` may leave; 0 at the beginning of a macro's body.
    private var loops = 0
    var depth = 0
    /// The implicit arguments that a macro's body uses: `varargs`, `kwargs` or `caller`.
    private var special: Set<String> = []
    private(set) var hasGenerationBlocks = false

    static func parse(_ source: String) throws -> (body: [Statement], hasGenerationBlocks: Bool) {
        var parser = Parser(tokens: try Lexer.tokens(of: source))
        let body = try parser.statements(until: [])
        return (body, parser.hasGenerationBlocks)
    }

    private init(tokens: [Token]) { self.tokens = tokens }

    // MARK: Tokens

    var current: Token { tokens[place] }
    var next: Token { tokens[min(place + 1, tokens.count - 1)] }
    var line: Int { current.line }

    @discardableResult
    mutating func advance() -> Token {
        defer { place = min(place + 1, tokens.count - 1) }
        return tokens[place]
    }

    func isAt(_ sign: String) -> Bool { current.kind == .sign(sign) }
    func isAt(name: String) -> Bool { current.kind == .name(name) }

    mutating func take(_ sign: String) -> Bool {
        guard isAt(sign) else { return false }
        advance()
        return true
    }

    mutating func take(name: String) -> Bool {
        guard isAt(name: name) else { return false }
        advance()
        return true
    }

    mutating func expect(_ kind: Token.Kind) throws {
        guard current.kind == kind else {
            throw failure("expected \(Token(kind: kind, line: 0).description), found \(current.description)")
        }
        advance()
    }

    mutating func identifier(_ what: String) throws -> String {
        guard case .name(let name) = current.kind else {
            throw failure("expected \(what), found \(current.description)")
        }
        advance()
        return name
    }

    func failure(_ message: String, remedy: String? = nil) -> JinjaFailure {
        JinjaFailure(message, remedy: remedy, line: line)
    }

    /// Runs `body` one nesting level deeper.
    mutating func nested<Result>(_ body: (inout Parser) throws -> Result) throws -> Result {
        depth += 1
        defer { depth -= 1 }
        guard depth <= JinjaLimits.nesting else {
            throw failure("expressions or blocks are nested more than \(JinjaLimits.nesting) levels deep")
        }
        return try body(&self)
    }

    mutating func note(special name: String) { special.insert(name) }

    // MARK: Statements

    /// The statements up to an opened tag with one of `names`, which the caller parses; or to the end.
    private mutating func statements(until names: Set<String>) throws -> [Statement] {
        try nested { parser in
            var result: [Statement] = []
            while true {
                let line = parser.line
                switch parser.current.kind {
                case .data(let text):
                    parser.advance()
                    result.append(Statement(.data(text), line: line))
                case .variableBegin:
                    parser.advance()
                    let value = try parser.tuple()
                    try parser.expect(.variableEnd)
                    result.append(Statement(.output(value), line: line))
                case .blockBegin:
                    parser.advance()
                    guard case .name(let name) = parser.current.kind else {
                        throw parser.failure("expected a statement, found \(parser.current.description)")
                    }
                    if names.contains(name) { return result }
                    parser.advance()
                    result.append(Statement(try parser.statement(name), line: line))
                    try parser.expect(.blockEnd)
                case .end:
                    guard names.isEmpty else {
                        throw parser.failure(
                            "the template ends where '\(names.sorted().joined(separator: "' or '"))' is missing")
                    }
                    return result
                default: throw parser.failure("unexpected \(parser.current.description)")
                }
            }
        }
    }

    /// A block's body and its end tag, up to the closing `%}`.
    private mutating func body(until name: String) throws -> [Statement] {
        try expect(.blockEnd)
        let result = try statements(until: [name])
        advance()
        return result
    }

    /// A body that runs as a function, so that no `break` in it can leave an enclosing loop.
    private mutating func closedBody(until name: String) throws -> [Statement] {
        let outer = loops
        loops = 0
        defer { loops = outer }
        return try body(until: name)
    }

    private mutating func statement(_ name: String) throws -> Statement.Kind {
        switch name {
        case "set": return try set()
        case "if": return try conditional()
        case "for": return try loop()
        case "macro":
            let name = try identifier("the macro's name")
            return .macro(try macro(name, parameters: signature(), until: "endmacro"))
        case "call":
            let parameters = isAt("(") ? try signature() : []
            let call = try expression()
            guard case .call = call.kind else { throw failure("'call' must call a macro") }
            return .call(call, caller: try macro("caller", parameters: parameters, until: "endcall"))
        case "filter":
            let chain = try filters(on: nil)
            return .filter(chain, body: try body(until: "endfilter"))
        case "with":
            var values: [(Target, Expression)] = []
            while current.kind != .blockEnd {
                if !values.isEmpty { try expect(.sign(",")) }
                let target = try target(allowsAttributes: false)
                try expect(.sign("="))
                values.append((target, try expression()))
            }
            return .with(values, body: try body(until: "endwith"))
        case "generation":
            hasGenerationBlocks = true
            return .generation(try closedBody(until: "endgeneration"))
        case "break", "continue":
            guard loops > 0 else { throw failure("'\(name)' outside of a loop") }
            return name == "break" ? .leaveLoop : .nextRound
        case "endfor", "endif", "endset", "endmacro", "endcall", "endfilter", "endwith", "endgeneration", "else",
            "elif":
            throw failure("'\(name)' without an opening tag")
        default:
            throw failure(
                "the statement '\(name)' is not supported",
                remedy: "use set, if, for, macro, call, filter, with, generation, break or continue")
        }
    }

    private mutating func set() throws -> Statement.Kind {
        let target = try targets(allowsAttributes: true)
        if take("=") { return .set(target, try tuple()) }
        let chain = isAt("|") ? try filters(on: nil, startsInline: false) : nil
        return .capture(target, filter: chain, body: try body(until: "endset"))
    }

    private mutating func conditional() throws -> Statement.Kind {
        var branches: [(Expression, [Statement])] = []
        while true {
            let test = try tuple(allowsConditionals: false)
            try expect(.blockEnd)
            branches.append((test, try statements(until: ["elif", "else", "endif"])))
            let name = try identifier("'endif'")
            if name == "elif" { continue }
            return .conditional(branches, otherwise: name == "else" ? try body(until: "endif") : [])
        }
    }

    private mutating func loop() throws -> Statement.Kind {
        let target = try targets(allowsAttributes: false)
        try expect(.name("in"))
        let values = try tuple(allowsConditionals: false, endsBefore: "recursive")
        let filter = take(name: "if") ? try expression() : nil
        guard !isAt(name: "recursive") else { throw failure("recursive loops are not supported") }
        try expect(.blockEnd)
        loops += 1
        let rounds = try statements(until: ["else", "endfor"])
        loops -= 1
        let otherwise = try identifier("'endfor'") == "else" ? try body(until: "endfor") : []
        return .loop(target, values, filter: filter, body: rounds, otherwise: otherwise)
    }

    private mutating func signature() throws -> [Parameter] {
        try expect(.sign("("))
        var parameters: [Parameter] = []
        while !take(")") {
            if !parameters.isEmpty { try expect(.sign(",")) }
            let name = try identifier("a parameter's name")
            let fallback = take("=") ? try expression() : nil
            guard fallback != nil || parameters.last?.fallback == nil else {
                throw failure("the parameter '\(name)' without a default follows one that has a default")
            }
            parameters.append(Parameter(name: name, fallback: fallback))
        }
        return parameters
    }

    private mutating func macro(_ name: String, parameters: [Parameter], until end: String) throws -> Macro {
        let outer = special
        special = []
        defer { special = outer }
        let body = try closedBody(until: end)
        return Macro(name, parameters, body, uses: special)
    }

    // MARK: Targets

    private mutating func targets(allowsAttributes: Bool) throws -> Target {
        let first = try target(allowsAttributes: allowsAttributes)
        guard isAt(",") else { return first }
        var all = [first]
        while take(",") {
            guard case .name(let name) = current.kind, name != "in" else { break }
            all.append(try target(allowsAttributes: false))
        }
        return .tuple(all)
    }

    private mutating func target(allowsAttributes: Bool) throws -> Target {
        if take("(") {
            let inner = try nested { try $0.targets(allowsAttributes: false) }
            try expect(.sign(")"))
            return inner
        }
        let name = try identifier("a name to set")
        guard !["true", "false", "none", "True", "False", "None"].contains(name) else {
            throw failure("'\(name)' can't be set")
        }
        guard allowsAttributes, take(".") else { return .name(name) }
        return .attribute(name, try identifier("an attribute to set"))
    }
}
