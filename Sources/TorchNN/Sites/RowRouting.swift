import Torch

/// Which adapters each row of a batch uses, where rows of one batch use different ones (Chen et al. 2023, Punica;
/// Sheng et al. 2023, S-LoRA).
///
/// A model says with ``within(_:_:)`` how the tokens it computes on are divided into rows; sites then apply to each
/// run of rows the adapters of its route, over a base projection that is computed once for all.
public final class RowRouting {
    /// A run of tokens with the same adapters. Route −1 uses none.
    public struct Span: Sendable {
        public let route: Int
        public let tokens: Range<Int>
    }

    /// The route of each row.
    public private(set) var routes: [Int]
    private var spans: [Span]?

    @TaskLocal private static var currentBox: Box?
    private struct Box: @unchecked Sendable { let routing: RowRouting }

    public init(routes: [Int]) { self.routes = routes }

    public static var current: RowRouting? { currentBox?.routing }
    /// The spans of the tokens that are computed on; `nil` where all rows use the same adapters.
    static var currentSpans: [Span]? { current?.spans }

    /// Runs a forward pass, or a generation, with these routes.
    public func run<Result>(_ body: () throws -> Result) rethrows -> Result {
        try Self.$currentBox.withValue(Box(routing: self), operation: body)
    }

    /// Runs a part of a model that computes on tokens divided into rows at `offsets` (rows + 1 entries). Rows may be
    /// `beams` times as many as routes, each route's beams in succession.
    public static func within<Result>(_ offsets: [Int], _ body: () throws -> Result) rethrows -> Result {
        guard let current else { return try body() }
        let before = current.spans
        current.spans = current.divided(offsets)
        defer { current.spans = before }
        return try body()
    }

    /// The same for `count` rows of one token each, as in a step of generation.
    public static func within<Result>(single count: Int, _ body: () throws -> Result) rethrows -> Result {
        guard current != nil else { return try body() }
        return try within(Array(0...count), body)
    }

    /// The routes and the division into rows as they are now, for a part of a forward pass that is run again.
    static func captured() -> (_ body: () -> Void) -> Void {
        guard let current else { return { $0() } }
        let (routes, spans) = (current.routes, current.spans)
        return { body in
            let copy = RowRouting(routes: routes)
            copy.spans = spans
            copy.run(body)
        }
    }

    /// Keeps the routes of these rows, in this order: the rows that generation goes on with.
    public func keep(rows: [Int]) { routes = rows.map { routes[$0] } }

    /// The routes of rows that may be several to a route's row (beams).
    func routes(forRows count: Int) -> [Int] {
        guard !routes.isEmpty, count != routes.count else { return routes }
        let beams = max(1, count / routes.count)
        return routes.flatMap { Array(repeating: $0, count: beams) }
    }

    private func divided(_ offsets: [Int]) -> [Span] {
        var result: [Span] = []
        for (row, route) in routes(forRows: offsets.count - 1).enumerated() where row + 1 < offsets.count {
            if let last = result.last, last.route == route {
                result[result.count - 1] = Span(route: route, tokens: last.tokens.lowerBound..<offsets[row + 1])
            } else {
                result.append(Span(route: route, tokens: offsets[row]..<offsets[row + 1]))
            }
        }
        return result
    }
}
