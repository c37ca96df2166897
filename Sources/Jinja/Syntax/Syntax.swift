/// An expression with the line where it begins.
final class Expression: Sendable {
    let kind: Kind
    let line: Int

    init(_ kind: Kind, line: Int) { (self.kind, self.line) = (kind, line) }

    enum Kind: Sendable {
        case none
        case boolean(Bool)
        case integer(Int)
        case number(Double)
        case string(String)
        case name(String)
        case list([Expression])
        case tuple([Expression])
        case dictionary([(key: Expression, value: Expression)])
        case attribute(Expression, String)
        case item(Expression, Expression)
        case slice(Expression, start: Expression?, stop: Expression?, step: Expression?)
        case call(Expression, CallArguments)
        case filter(Expression?, String, CallArguments)
        case test(Expression, String, CallArguments)
        case not(Expression)
        case negative(Expression)
        case positive(Expression)
        case arithmetic(Expression, String, Expression)
        case concatenation([Expression])
        case comparison(Expression, [(sign: String, operand: Expression)])
        case and(Expression, Expression)
        case or(Expression, Expression)
        case conditional(test: Expression, then: Expression, otherwise: Expression?)
    }
}

struct CallArguments: Sendable {
    var positional: [Expression] = []
    var named: [(name: String, value: Expression)] = []
    /// `*list`
    var unpacked: Expression?
    /// `**dictionary`
    var unpackedNames: Expression?
}

/// The target of an assignment or a loop.
indirect enum Target: Sendable {
    case name(String)
    case attribute(String, String)
    case tuple([Target])
}

struct Parameter: Sendable {
    var name: String
    var fallback: Expression?
}

final class Macro: Sendable {
    let name: String
    let parameters: [Parameter]
    let body: [Statement]
    /// Whether the body uses arguments beyond the parameters: `varargs`, `kwargs` or `caller`.
    let uses: Set<String>

    init(_ name: String, _ parameters: [Parameter], _ body: [Statement], uses: Set<String>) {
        (self.name, self.parameters, self.body, self.uses) = (name, parameters, body, uses)
    }
}

final class Statement: Sendable {
    let kind: Kind
    let line: Int

    init(_ kind: Kind, line: Int) { (self.kind, self.line) = (kind, line) }

    enum Kind: Sendable {
        case data(String)
        case output(Expression)
        case set(Target, Expression)
        case capture(Target, filter: Expression?, body: [Statement])
        case conditional([(test: Expression, body: [Statement])], otherwise: [Statement])
        case loop(Target, Expression, filter: Expression?, body: [Statement], otherwise: [Statement])
        case macro(Macro)
        case call(Expression, caller: Macro)
        case filter(Expression, body: [Statement])
        case with([(target: Target, value: Expression)], body: [Statement])
        case generation([Statement])
        case leaveLoop
        case nextRound
    }
}
