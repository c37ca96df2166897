/// Expressions, from lowest to highest precedence.
extension Parser {
    mutating func expression(allowsConditionals: Bool = true) throws -> Expression {
        try nested { parser in
            let line = parser.line
            var value = try parser.or()
            guard allowsConditionals else { return value }
            var count = 0
            while parser.take(name: "if") {
                try parser.count(&count)
                let test = try parser.or()
                let otherwise = parser.take(name: "else") ? try parser.expression() : nil
                value = Expression(.conditional(test: test, then: value, otherwise: otherwise), line: line)
            }
            return value
        }
    }

    /// One expression, or a tuple of several separated by commas.
    mutating func tuple(
        allowsConditionals: Bool = true, endsBefore word: String? = nil, inParentheses: Bool = false
    ) throws -> Expression {
        let line = line
        var values: [Expression] = []
        var isTuple = false
        while true {
            if !values.isEmpty { try expect(.sign(",")) }
            if endsTuple(before: word) { break }
            values.append(try expression(allowsConditionals: allowsConditionals))
            guard isAt(",") else { break }
            isTuple = true
        }
        if isTuple { return Expression(.tuple(values), line: line) }
        if let only = values.first { return only }
        guard inParentheses else { throw failure("expected an expression, found \(current.description)") }
        return Expression(.tuple([]), line: line)
    }

    private func endsTuple(before word: String?) -> Bool {
        switch current.kind {
        case .variableEnd, .blockEnd, .sign(")"): true
        case .name(let name): name == word
        default: false
        }
    }

    /// Counts an operator of a chain, whose syntax tree is as deep as the chain is long.
    private func count(_ operators: inout Int) throws {
        operators += 1
        guard operators <= JinjaLimits.chain else {
            throw failure("more than \(JinjaLimits.chain) operators in a row")
        }
    }

    private mutating func or() throws -> Expression {
        let line = line
        var left = try and()
        var operators = 0
        while take(name: "or") {
            try count(&operators)
            left = Expression(.or(left, try and()), line: line)
        }
        return left
    }

    private mutating func and() throws -> Expression {
        let line = line
        var left = try not()
        var operators = 0
        while take(name: "and") {
            try count(&operators)
            left = Expression(.and(left, try not()), line: line)
        }
        return left
    }

    private mutating func not() throws -> Expression {
        let line = line
        guard take(name: "not") else { return try comparison() }
        return try nested { Expression(.not(try $0.not()), line: line) }
    }

    private mutating func comparison() throws -> Expression {
        let line = line
        let first = try sum()
        var rest: [(String, Expression)] = []
        while true {
            if case .sign(let sign) = current.kind, ["==", "!=", "<", "<=", ">", ">="].contains(sign) {
                advance()
                rest.append((sign, try sum()))
            } else if take(name: "in") {
                rest.append(("in", try sum()))
            } else if isAt(name: "not"), next.kind == .name("in") {
                advance()
                advance()
                rest.append(("not in", try sum()))
            } else {
                return rest.isEmpty ? first : Expression(.comparison(first, rest), line: line)
            }
        }
    }

    private mutating func sum() throws -> Expression {
        try chain(["+", "-"]) { try $0.concatenation() }
    }

    private mutating func concatenation() throws -> Expression {
        let line = line
        var parts = [try product()]
        while take("~") { parts.append(try product()) }
        return parts.count == 1 ? parts[0] : Expression(.concatenation(parts), line: line)
    }

    private mutating func product() throws -> Expression {
        try chain(["*", "/", "//", "%"]) { try $0.power() }
    }

    private mutating func power() throws -> Expression {
        try chain(["**"]) { try $0.unary() }
    }

    private mutating func chain(
        _ signs: Set<String>, _ operand: (inout Parser) throws -> Expression
    ) throws -> Expression {
        let line = line
        var left = try operand(&self)
        var operators = 0
        while case .sign(let sign) = current.kind, signs.contains(sign) {
            try count(&operators)
            advance()
            left = Expression(.arithmetic(left, sign, try operand(&self)), line: line)
        }
        return left
    }

    private mutating func unary(hasFilters: Bool = true) throws -> Expression {
        let line = line
        var value: Expression
        if take("-") {
            value = Expression(.negative(try nested { try $0.unary(hasFilters: false) }), line: line)
        } else if take("+") {
            value = Expression(.positive(try nested { try $0.unary(hasFilters: false) }), line: line)
        } else {
            value = try primary()
        }
        value = try postfix(value)
        return hasFilters ? try filtersAndTests(value) : value
    }

    private mutating func primary() throws -> Expression {
        let line = line
        let token = advance()
        switch token.kind {
        case .name(let name):
            switch name {
            case "true", "True": return Expression(.boolean(true), line: line)
            case "false", "False": return Expression(.boolean(false), line: line)
            case "none", "None": return Expression(.none, line: line)
            default:
                if ["varargs", "kwargs", "caller"].contains(name) { note(special: name) }
                return Expression(.name(name), line: line)
            }
        case .string(var text):
            while case .string(let more) = current.kind {
                text += more
                advance()
            }
            return Expression(.string(text), line: line)
        case .integer(let value): return Expression(.integer(value), line: line)
        case .number(let value): return Expression(.number(value), line: line)
        case .sign("("):
            let value = try tuple(inParentheses: true)
            try expect(.sign(")"))
            return value
        case .sign("["):
            var values: [Expression] = []
            while !take("]") {
                if !values.isEmpty { try expect(.sign(",")) }
                if take("]") { break }
                values.append(try expression())
            }
            return Expression(.list(values), line: line)
        case .sign("{"):
            var pairs: [(Expression, Expression)] = []
            while !take("}") {
                if !pairs.isEmpty { try expect(.sign(",")) }
                if take("}") { break }
                let key = try expression()
                try expect(.sign(":"))
                pairs.append((key, try expression()))
            }
            return Expression(.dictionary(pairs), line: line)
        default: throw JinjaFailure("unexpected \(token.description)", line: line)
        }
    }

    private mutating func postfix(_ value: Expression) throws -> Expression {
        var value = value
        var operators = 0
        while true {
            try count(&operators)
            let line = line
            if take(".") {
                switch advance().kind {
                case .name(let name): value = Expression(.attribute(value, name), line: line)
                case .integer(let index):
                    value = Expression(.item(value, Expression(.integer(index), line: line)), line: line)
                default: throw failure("expected an attribute name after '.'")
                }
            } else if take("[") {
                value = try subscripted(value, line: line)
            } else if isAt("(") {
                value = Expression(.call(value, try arguments()), line: line)
            } else {
                return value
            }
        }
    }

    private mutating func subscripted(_ value: Expression, line: Int) throws -> Expression {
        func part(_ parser: inout Parser) throws -> Expression? {
            parser.isAt(":") || parser.isAt("]") ? nil : try parser.expression()
        }
        let first = try part(&self)
        if take(":") {
            let stop = try part(&self)
            let step = take(":") ? try part(&self) : nil
            try expect(.sign("]"))
            return Expression(.slice(value, start: first, stop: stop, step: step), line: line)
        }
        guard let first else { throw failure("expected an index, found \(current.description)") }
        guard !isAt(",") else { throw failure("an index with several parts is not supported") }
        try expect(.sign("]"))
        return Expression(.item(value, first), line: line)
    }

    mutating func arguments() throws -> CallArguments {
        try expect(.sign("("))
        var result = CallArguments()
        var isFirst = true
        while !take(")") {
            if !isFirst {
                try expect(.sign(","))
                if take(")") { break }
            }
            isFirst = false
            if take("**") {
                result.unpackedNames = try expression()
            } else if take("*") {
                result.unpacked = try expression()
            } else if case .name(let name) = current.kind, next.kind == .sign("=") {
                advance()
                advance()
                result.named.append((name, try expression()))
            } else {
                guard result.named.isEmpty, result.unpacked == nil, result.unpackedNames == nil else {
                    throw failure("positional argument follows keyword argument")
                }
                result.positional.append(try expression())
            }
        }
        return result
    }

    // MARK: Filters and tests

    private mutating func filtersAndTests(_ value: Expression) throws -> Expression {
        var value = value
        var operators = 0
        while true {
            try count(&operators)
            let line = line
            if isAt("|") {
                value = try filters(on: value, startsInline: false)
            } else if take(name: "is") {
                value = try test(value, line: line)
            } else if isAt("(") {
                value = Expression(.call(value, try arguments()), line: line)
            } else {
                return value
            }
        }
    }

    /// `| name(…) | name`, applied to the value before or to a block's text.
    mutating func filters(on value: Expression?, startsInline: Bool = true) throws -> Expression {
        var value = value
        var operators = 0
        var isFirst = startsInline
        while isFirst || take("|") {
            try count(&operators)
            isFirst = false
            let line = line
            let name = try dottedName("a filter's name")
            value = Expression(.filter(value, name, isAt("(") ? try arguments() : CallArguments()), line: line)
        }
        guard let value else { throw failure("expected a filter, found \(current.description)") }
        return value
    }

    private mutating func test(_ value: Expression, line: Int) throws -> Expression {
        let isNegated = take(name: "not")
        let name = try dottedName("a test's name")
        var arguments = CallArguments()
        if isAt("(") {
            arguments = try self.arguments()
        } else if beginsArgument {
            guard !isAt(name: "is") else { throw failure("tests can't be chained with 'is'") }
            arguments.positional = [try postfix(primary())]
        }
        let result = Expression(.test(value, name, arguments), line: line)
        return isNegated ? Expression(.not(result), line: line) : result
    }

    private var beginsArgument: Bool {
        switch current.kind {
        case .name(let name): !["else", "or", "and"].contains(name)
        case .string, .integer, .number, .sign("("), .sign("["), .sign("{"): true
        default: false
        }
    }

    private mutating func dottedName(_ what: String) throws -> String {
        var name = try identifier(what)
        while take(".") { name += "." + (try identifier(what)) }
        return name
    }
}
