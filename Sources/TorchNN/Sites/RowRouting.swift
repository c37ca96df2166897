import Torch

/// Adapter routing in mixed-adapter batches: which adapters each sequence uses (Punica, Chen et al. 2023; S-LoRA,
/// Sheng et al. 2023).
///
/// A model declares with ``within(_:_:)`` how its current tokens are divided into sequences; sites then apply each
/// route's adapters to its spans, over a base projection that is computed once for the whole batch.
package final class RowRouting {
    /// A span of tokens with the same adapters. Route −1 uses none.
    package struct Span: Sendable {
        package let route: Int
        package let tokens: Range<Int>
    }

    /// The route of each sequence.
    package private(set) var routes: [Int]
    private var spans: [Span]?
    /// Whether the routes' adapters don't change while they are attached, so that sites may keep what they compute from them.
    let isFrozen: Bool

    @TaskLocal private static var currentBox: Box?
    private struct Box: @unchecked Sendable { let routing: RowRouting }

    package init(routes: [Int], isFrozen: Bool = false) { (self.routes, self.isFrozen) = (routes, isFrozen) }

    /// The routing of the current forward pass or generation.
    package static var current: RowRouting? { currentBox?.routing }
    /// The spans of the current tokens; `nil` if all sequences use the same adapters.
    static var currentSpans: [Span]? { current?.spans }

    /// Runs a forward pass, or a generation, with these routes.
    package func run<Result>(_ body: () throws -> Result) rethrows -> Result {
        try Self.$currentBox.withValue(Box(routing: self), operation: body)
    }

    /// Runs a part of a model whose tokens are divided into sequences at `offsets` (rows + 1 entries). There may be
    /// `beams` times as many sequences as routes, each route's beams in succession.
    package static func within<Result>(_ offsets: [Int], _ body: () throws -> Result) rethrows -> Result {
        guard let current else { return try body() }
        let before = current.spans
        current.spans = current.divided(offsets)
        defer { current.spans = before }
        return try body()
    }

    /// Runs a part of a model with `count` sequences of one token each, as in a decode step.
    package static func within<Result>(single count: Int, _ body: () throws -> Result) rethrows -> Result {
        guard current != nil else { return try body() }
        return try within(Array(0...count), body)
    }

    /// Runs a part of a model with some of the sequences, in this order.
    package static func within<Result>(rows: [Int], _ body: () throws -> Result) rethrows -> Result {
        guard let current else { return try body() }
        let routes = rows.map { current.routes[$0] }
        return try RowRouting(routes: routes, isFrozen: current.isFrozen).run(body)
    }

    /// Captures the routes and spans, to recompute a part of a forward pass.
    static func captured() -> (_ body: () -> Void) -> Void {
        guard let current else { return { $0() } }
        let (routes, spans, isFrozen) = (current.routes, current.spans, current.isFrozen)
        return { body in
            let copy = RowRouting(routes: routes, isFrozen: isFrozen)
            copy.spans = spans
            copy.run(body)
        }
    }

    /// Keeps the routes of these sequences, in this order, when generation continues with them.
    package func keep(rows: [Int]) { routes = rows.map { routes[$0] } }

    /// The route of each of `count` sequences, which may be several per route (beams).
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
