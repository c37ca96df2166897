import Torch

/// The sequences of a forward pass, for layers that compute along them.
final class SequenceScan {
    /// Where each sequence starts, and the end.
    let offsets: [Int]
    private let device: Device
    /// Number of sequences.
    let rows: Int
    /// Whether each sequence has one token.
    let areSingle: Bool
    /// Their chunks, for memories that are carried through them.
    private(set) lazy var chunks = SequenceChunks(offsets, device: device)
    private var known: [Int: Places] = [:]

    /// Indices for a convolution: its inputs among the earlier inputs of all sequences and their tokens, its outputs of the
    /// tokens, and the last inputs of each sequence.
    struct Places {
        let inputs, outputs, last: Tensor
    }

    /// - Parameter offsets: where each sequence starts, and the end.
    init(_ offsets: [Int], device: Device) {
        (self.offsets, self.device, rows) = (offsets, device, max(0, offsets.count - 1))
        areSingle = offsets == Array(0..<offsets.count)
    }

    /// - Parameter reach: number of inputs before a token that its output depends on.
    func places(reach: Int) -> Places {
        if let own = known[reach] { return own }
        var inputs: [Int] = []
        var outputs: [Int] = []
        var last: [Int] = []
        for row in 0..<rows {
            inputs += Array(row * reach..<(row + 1) * reach)
            for token in offsets[row]..<offsets[row + 1] {
                // The output whose window ends with this token.
                outputs.append(inputs.count - reach)
                inputs.append(rows * reach + token)
            }
            last += Array(inputs.count - reach..<inputs.count)
        }
        let made = Places(
            inputs: Tensor(inputs, device: device), outputs: Tensor(outputs, device: device),
            last: Tensor(last, device: device))
        known[reach] = made
        return made
    }
}

/// What a layer that computes along sequences remembers of each of them.
struct RecurrentState {
    /// The last inputs of a convolution, `[rows, width − 1, channels]`.
    var inputs: Tensor
    /// In tensors of consecutive sequences, `[rows, …]`; empty for a layer that is a convolution only.
    var memories: [Tensor] = []

    /// `[rows, …]`
    var memory: Tensor? {
        memories.count < 2 ? memories.first : .concatenated(memories)
    }

    /// The states of these sequences, in this order.
    func selecting(_ rows: Tensor) -> RecurrentState {
        RecurrentState(
            inputs: inputs.selecting(rows), memories: [memory].compactMap { $0?.selecting(rows) })
    }

    /// The state of one sequence.
    func row(_ row: Int) -> RecurrentState {
        let inputs = inputs.narrowed(axis: 0, row..<row + 1).clone()
        // A tensor for each sequence needs no copy.
        if memories.count == self.inputs.dim(0) { return RecurrentState(inputs: inputs, memories: [memories[row]]) }
        return RecurrentState(
            inputs: inputs, memories: memory.map { [$0.narrowed(axis: 0, row..<row + 1).clone()] } ?? [])
    }

    /// One sequence's state before its first token, in the shape of this one's.
    var zeros: RecurrentState {
        func zeros(_ x: Tensor) -> Tensor {
            .zeros([1] + Array(x.shape.dropFirst()), dtype: x.dtype, device: x.device)
        }
        return RecurrentState(inputs: zeros(inputs), memories: memories.prefix(1).map(zeros))
    }

    /// The states of several sequences together, whose memories aren't copied; `nil` if none has any.
    static func joined(_ states: [RecurrentState?]) -> RecurrentState? {
        guard let first = states.compactMap({ $0 }).first else { return nil }
        let all = states.map { $0 ?? first.zeros }
        return RecurrentState(inputs: .concatenated(all.map(\.inputs)), memories: all.flatMap(\.memories))
    }
}

/// The states of layers in decoding.
final class RecurrentCache {
    var layers: [Int: RecurrentState]

    init(_ layers: [Int: RecurrentState] = [:]) { self.layers = layers }

    func select(rows: Tensor) { layers = layers.mapValues { $0.selecting(rows) } }
}

/// A layer whose outputs depend on all tokens before without keys and values.
package protocol RecurrentLayer: AnyObject {
    /// Size of its state of one sequence, in values.
    var stateSize: Int { get }
}

extension AttentionContext {
    /// The memories that a layer keeps for decoding.
    var keptMemories: Recurrence.Memories {
        keepsRecurrentStates ? keepsStatesApart ? .apart : .together : .none
    }
}
