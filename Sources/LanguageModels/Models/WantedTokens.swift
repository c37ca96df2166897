import Torch
import TorchNN

/// The tokens whose outputs of a stack's last layer are read: those that predict a target, or speak for a row. The
/// others have keys and values there and nothing else, neither forward nor backward.
struct WantedTokens {
    /// Where they lie among all tokens, virtual ones included, int64 [wanted].
    let indices: Tensor
    /// Where each row's begin among them: rows + 1 entries.
    let offsets: [Int]

    init(ranges: [Range<Int>], device: Device) {
        indices = Tensor(ranges.flatMap { Array($0) }, device: device)
        offsets = ranges.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1.count) }
    }

    /// - Parameters:
    ///   - offsets: where each row's own tokens begin.
    ///   - spans: what is read of each row, counted over all rows' own tokens.
    /// - Returns: `nil` where all outputs are to be computed.
    init?(_ rows: PromptedRows, of offsets: [Int], spans: [Range<Int>]) {
        guard UnreadOutputs.areLeftOut else { return nil }
        let ranges = spans.indices.map { row -> Range<Int> in
            let shift = rows.offsets[row] + rows.prompts[row] - offsets[row]
            return (spans[row].lowerBound + shift)..<(spans[row].upperBound + shift)
        }
        self.init(ranges: ranges, device: rows.states.device)
    }
}

/// Outputs of a model's last layer that nothing reads.
public enum UnreadOutputs {
    @TaskLocal private static var areComputed = false

    /// Runs forward passes that compute them too, for what looks at the inputs of layers (EVA, GPTQ).
    public static func computed<Result>(_ body: () throws -> Result) rethrows -> Result {
        try $areComputed.withValue(true, operation: body)
    }

    /// Rows that choose their adapters are divided into rows throughout.
    static var areLeftOut: Bool { !areComputed && RowRouting.current == nil }
}

/// A layer of a stack, [tokens, size] → the same shape, or [wanted tokens, size] in the last one.
protocol StackLayer: Module {
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor
}

/// x [tokens, size] through the layers: [wanted tokens, size].
func through(_ layers: [some StackLayer], _ x: Tensor, _ context: AttentionContext) -> Tensor {
    guard let last = layers.last else { return context.last.wanted(x) }
    let x = layers.dropLast().reduce(x) { x, layer in checkpointed(x) { layer($0, context) } }
    let narrowed = context.last
    return checkpointed(x) { last($0, narrowed) }
}
