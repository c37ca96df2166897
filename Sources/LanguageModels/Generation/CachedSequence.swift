import Torch
import TorchNN

/// One sequence of a ``SequenceBatch``, with its cached keys and values.
package final class CachedSequence {
    /// The encoder's input; empty for a decoder-only model.
    let source: [Int]
    /// The prompt, for inputs that don't say it: the first tokens that were fed.
    var prompt: [Int]?
    /// Number of tokens to reserve, without virtual ones.
    package let capacity: Int
    /// Number of tokens that were fed, without virtual ones.
    package internal(set) var length = 0
    /// Number of cached tokens, virtual ones included.
    package internal(set) var columns = 0
    /// The encoder's keys and values of each decoder layer, `[tokens, heads, size]`.
    var memories: [(keys: Tensor, values: Tensor)] = []
    /// Whether an encoder has read ``source``.
    var hasMemory: Bool { !memories.isEmpty }
    /// Whether nothing is cached, not even virtual tokens.
    var isEmpty: Bool { columns == 0 && length == 0 }
    var layers: [Int: Layer] = [:]
    /// States of the layers without keys and values.
    var states: [Int: RecurrentState] = [:]
    /// The state of a sequence that is decoded alone.
    var state: (any DecodingState)?

    /// Keys and values of one layer, `[1, 1, capacity, heads · size]`.
    struct Layer {
        var keys: Tensor
        var values: Tensor
    }

    /// - Parameters:
    ///   - source: the encoder's input, for an encoder-decoder.
    ///   - capacity: number of tokens to reserve, without virtual ones.
    package init(source: [Int] = [], capacity: Int) { (self.source, self.capacity) = (source, max(1, capacity)) }

    /// Writes keys and values `[tokens, heads, size]` at `column` of a layer's cache.
    /// - Returns: all keys and values up to there, `[columns, heads, size]`, without a copy.
    func write(_ keys: Tensor, _ values: Tensor, layer: Int, column: Int) -> (
        keys: Tensor, values: Tensor
    ) {
        let (count, heads, size) = (keys.dim(0), keys.dim(1), keys.dim(2))
        let end = column + count
        let cache = reserve(layer, from: column, to: end, keys, values)
        Functions.write(keys.reshaped(1, 1, count, heads * size), into: cache.keys, column: column)
        Functions.write(values.reshaped(1, 1, count, heads * size), into: cache.values, column: column)
        return filled(cache, columns: end, size: size)
    }

    /// The first columns of a layer's keys and values, `[columns, heads, size]`, without a copy.
    func filled(layer: Int, columns: Int, size: Int) -> (keys: Tensor, values: Tensor)? {
        layers[layer].map { filled($0, columns: columns, size: size) }
    }

    private func filled(_ cache: Layer, columns: Int, size: Int) -> (keys: Tensor, values: Tensor) {
        func part(_ x: Tensor) -> Tensor { x.narrowed(axis: 2, 0..<columns).reshaped(columns, -1, size) }
        return (part(cache.keys), part(cache.values))
    }

    /// A layer's cache with room for the columns up to `end`, those before `column` being filled, for keys and values
    /// `[tokens, heads, size]`.
    func reserve(_ layer: Int, from column: Int, to end: Int, _ keys: Tensor, _ values: Tensor) -> Layer {
        if let known = layers[layer] {
            guard end > known.keys.dim(2) else { return known }
            let larger = grown(known, to: end + end / 2, filled: column)
            layers[layer] = larger
            return larger
        }
        let shape = [1, 1, max(end, columns + capacity), keys.dim(1) * keys.dim(2)]
        let new = Layer(
            keys: .empty(shape, dtype: keys.dtype, device: keys.device),
            values: .empty(shape, dtype: values.dtype, device: values.device))
        layers[layer] = new
        return new
    }

    func copy() -> CachedSequence {
        let other = CachedSequence(source: source, capacity: capacity)
        other.prompt = prompt
        (other.length, other.columns) = (length, columns)
        other.layers = layers.mapValues { grown($0, to: max($0.keys.dim(2), columns), filled: columns) }
        (other.states, other.memories) = (states, memories)
        return other
    }

    func prefix(_ length: Int, capacity: Int) -> CachedSequence {
        let other = CachedSequence(source: source, capacity: capacity)
        other.length = length
        other.columns = columns - self.length + length
        let room = other.columns + max(0, other.capacity - length)
        other.layers = layers.mapValues { grown($0, to: room, filled: other.columns) }
        other.states = states
        return other
    }

    private func grown(_ cache: Layer, to capacity: Int, filled: Int) -> Layer {
        func grown(_ x: Tensor) -> Tensor {
            let larger = Tensor.empty([1, 1, capacity, x.dim(3)], dtype: x.dtype, device: x.device)
            if filled > 0 { Functions.write(x.narrowed(axis: 2, 0..<filled), into: larger, column: 0) }
            return larger
        }
        return Layer(keys: grown(cache.keys), values: grown(cache.values))
    }
}
