import Torch
import TorchNN

/// The tokens whose last-layer outputs are read: those that predict a target or represent a sequence. The last layer
/// computes only keys and values of the others, in the forward and the backward pass.
struct SelectedTokens {
    /// Indices among all tokens, including virtual ones, int64 `[selected]`.
    let indices: Tensor
    /// Offsets of each sequence among them: rows + 1 entries.
    let offsets: [Int]

    init(ranges: [Range<Int>], device: Device) {
        indices = Tensor(ranges.flatMap { Array($0) }, device: device)
        offsets = ranges.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1.count) }
    }

    /// - Parameters:
    ///   - offsets: where each sequence's own tokens start.
    ///   - spans: the read span of each sequence, as indices into all sequences' own tokens.
    /// - Returns: `nil` if all outputs are computed.
    init?(_ rows: PromptedRows, of offsets: [Int], spans: [Range<Int>]) {
        guard UnreadOutputs.areLeftOut else { return nil }
        let ranges = spans.indices.map { row -> Range<Int> in
            let shift = rows.offsets[row] + rows.prompts[row] - offsets[row]
            return (spans[row].lowerBound + shift)..<(spans[row].upperBound + shift)
        }
        self.init(ranges: ranges, device: rows.states.device)
    }
}

/// Last-layer outputs that nothing reads.
package enum UnreadOutputs {
    @TaskLocal private static var areComputed = false

    /// Runs forward passes that compute them too, for methods that observe layer inputs (EVA, GPTQ).
    package static func computed<Result>(_ body: () throws -> Result) rethrows -> Result {
        try $areComputed.withValue(true, operation: body)
    }

    /// Mixed-adapter batches need all tokens of each sequence.
    static var areLeftOut: Bool { !areComputed && RowRouting.current == nil }
}

/// A layer of a stack, `[tokens, size]` -> `[tokens, size]`, or `[selected tokens, size]` in the last one.
protocol StackLayer: StackedLayer {
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor
}

/// Runs x `[tokens, size]` through the layers -> `[selected tokens, size]`.
func through(_ layers: [some StackLayer], _ x: Tensor, _ context: AttentionContext) -> Tensor {
    through(layers, x, context) { layer, x, context in layer(x, context) }
}

/// The same with layers that `apply` calls.
func through<Layer: StackedLayer>(
    _ layers: [Layer], _ x: Tensor, _ context: AttentionContext,
    _ apply: @escaping (Layer, Tensor, AttentionContext) -> Tensor
) -> Tensor {
    guard let last = layers.last else { return context.last.selected(x) }
    return context.invoked {
        let x = layers.dropLast().reduce(x) { x, layer in checkpointed(x, layer) { apply($0, $1, context) } }
        let narrowed = context.last
        return checkpointed(x, last) { apply($0, $1, narrowed) }
    }
}

/// The same, if all layers compute the outputs of all tokens.
func throughAll(_ layers: [some StackLayer], _ x: Tensor, _ context: AttentionContext) -> Tensor {
    context.last.selected(layers.reduce(x) { x, layer in checkpointed(x, layer) { $0($1, context) } })
}
