import Torch

/// The texts of the sequences that a model computes, for adapters that act from an invocation on: activated LoRA
/// (Greenewald et al. 2025), whose keys and values of earlier tokens are the base's.
///
/// An invocation is a run of tokens; its last occurrence in a text counts. In generation the text is the prompt, as in
/// Hugging Face PEFT, so generated tokens never invoke an adapter. A model declares which tokens of the texts it
/// computes with ``within(_:starts:selected:_:)``; an adapter asks for the mask of those after its invocation.
package final class InvocationScope {
    /// The tokens of a forward pass that an adapter acts on.
    package enum Mask {
        case none, all
        /// 1 for tokens that it acts on and 0 for others, float32 `[tokens, 1]`.
        case some(Tensor)
    }

    /// The tokens that a part of a model computes.
    private final class Layout {
        /// Where each sequence starts, and the end: rows + 1 entries.
        let offsets: [Int]
        /// The position of each sequence's first token in its text, negative with virtual tokens; `nil` after the texts.
        let starts: [Int]?
        /// The tokens that the last layer computes, if not all.
        let selected: Tensor?
        let device: Device
        var masks: [[Int]: Mask] = [:]

        init(_ offsets: [Int], _ starts: [Int]?, _ selected: Tensor?, _ device: Device) {
            (self.offsets, self.starts, self.selected, self.device) = (offsets, starts, selected, device)
        }
    }

    private struct State: @unchecked Sendable {
        let scope: InvocationScope
        var layout: Layout?
        /// The tokens of one route among those of the layout.
        var span: Range<Int>?
    }

    @TaskLocal private static var state: State?

    private enum Source {
        case texts([[Int]])
        /// Packed ids, which are read only if an adapter asks.
        case packed(PackedSequences)
    }

    private var source: Source
    private let rows: Int
    /// Where each text's last occurrence of an invocation starts, by invocation.
    private var found: [[Int]: [Int?]] = [:]
    /// The texts that are still computed, as indices; all at first.
    private var kept: [Int]

    /// - Parameter texts: the token ids of each sequence's text.
    package init(_ texts: [[Int]]) {
        (source, rows, kept) = (.texts(texts), texts.count, Array(texts.indices))
    }

    /// The packed sequences are the texts.
    package init(_ input: PackedSequences) {
        (source, rows, kept) = (.packed(input), input.rows, Array(0..<input.rows))
    }

    /// The scope of the current generation.
    package static var current: InvocationScope? { state?.scope }

    /// Starts a generation that continues the texts.
    package func run<Result>(_ body: () throws -> Result) rethrows -> Result {
        try Self.$state.withValue(State(scope: self), operation: body)
    }

    /// Runs a part of a model that computes tokens of the texts.
    /// - Parameters:
    ///   - offsets: where each sequence starts among the tokens, and the end. There may be a multiple of the texts, each
    ///     one's beams in succession.
    ///   - starts: the position of each sequence's first token in its text, negative with virtual tokens; `nil` if all
    ///     tokens follow the texts.
    ///   - selected: indices of the tokens that the last layer computes, int64; `nil` if all.
    package func within<Result>(
        _ offsets: [Int], starts: [Int]?, selected: Tensor? = nil, device: Device, _ body: () throws -> Result
    ) rethrows -> Result {
        let state = State(scope: self, layout: Layout(offsets, starts, selected, device))
        return try Self.$state.withValue(state, operation: body)
    }

    /// Runs adapters over a span of the tokens.
    static func within<Result>(span: Range<Int>, _ body: () throws -> Result) rethrows -> Result {
        guard var inner = state, inner.layout != nil else { return try body() }
        inner.span = span
        return try $state.withValue(inner, operation: body)
    }

    /// Captures the scope, to recompute a part of a forward pass.
    static func captured() -> (_ body: () -> Void) -> Void {
        guard let state else { return { $0() } }
        return { body in $state.withValue(state, operation: body) }
    }

    /// Continues with these sequences, in this order.
    package func keep(rows: [Int]) { kept = rows.map { kept[$0] } }

    /// The mask of an adapter with this invocation over x, which has so many tokens.
    package static func mask(of invocation: [Int], tokens: Int) -> Mask {
        guard let state, let layout = state.layout else { return .none }
        guard layout.device != .meta else { return .all }
        let mask = layout.masks[invocation] ?? state.scope.mask(of: invocation, layout)
        layout.masks[invocation] = mask
        guard case .some(let values) = mask else { return mask }
        if let span = state.span { return span.count == tokens ? .some(values.narrowed(axis: 0, span)) : .none }
        if values.dim(0) == tokens { return mask }
        guard let selected = layout.selected, selected.dim(0) == tokens else { return .none }
        return .some(values.selecting(selected))
    }

    private func mask(of invocation: [Int], _ layout: Layout) -> Mask {
        let starts = starts(of: invocation)
        let count = layout.offsets.count - 1
        // Beams of one text follow each other.
        let beams = max(1, count / max(1, kept.count))
        var values: [Float] = []
        for row in 0..<count {
            let length = layout.offsets[row + 1] - layout.offsets[row]
            let text = row / beams
            guard text < kept.count, let start = starts[kept[text]] else {
                values += repeatElement(0, count: length)
                continue
            }
            let before = layout.starts.map { min(length, max(0, start - $0[row])) } ?? 0
            values += repeatElement(Float(0), count: before)
            values += repeatElement(Float(1), count: length - before)
        }
        if !values.contains(1) { return .none }
        if !values.contains(0) { return .all }
        return .some(Tensor(values, shape: [values.count, 1], device: layout.device))
    }

    private func starts(of invocation: [Int]) -> [Int?] {
        if let known = found[invocation] { return known }
        let starts = texts().map { Self.lastStart(of: invocation, in: $0) }
        found[invocation] = starts
        return starts
    }

    private func texts() -> [[Int]] {
        switch source {
        case .texts(let texts): return texts
        case .packed(let input):
            let ids: [Int] = input.ids.array()
            let texts = (0..<rows).map { Array(ids[input.offsets[$0]..<input.offsets[$0 + 1]]) }
            source = .texts(texts)
            return texts
        }
    }

    /// Where the last occurrence of an invocation starts in a text; `nil` if there is none.
    static func lastStart(of invocation: [Int], in text: [Int]) -> Int? {
        guard !invocation.isEmpty, invocation.count <= text.count else { return nil }
        return (0...(text.count - invocation.count)).last { start in
            text[start..<(start + invocation.count)].elementsEqual(invocation)
        }
    }
}
