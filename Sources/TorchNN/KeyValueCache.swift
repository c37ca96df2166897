import Torch

/// A KV cache with buffers of their final size, so that a decode step writes one column and copies nothing else.
package final class KeyValueCache {
    private var keys: Tensor
    private var values: Tensor
    /// Number of cached tokens.
    package private(set) var length = 0
    /// Maximum number of tokens.
    package var capacity: Int { keys.dim(2) }

    /// Allocates buffers `[batch, heads, capacity, size]`.
    package init(batch: Int, heads: Int, capacity: Int, size: Int, dtype: DType, device: Device) {
        keys = .empty([batch, heads, capacity, size], dtype: dtype, device: device)
        values = .empty([batch, heads, capacity, size], dtype: dtype, device: device)
    }

    /// Appends keys and values `[batch, heads, tokens, size]`.
    /// - Returns: all cached keys and values, `[batch, heads, length, size]`, without a copy.
    package func append(_ newKeys: Tensor, _ newValues: Tensor) -> (keys: Tensor, values: Tensor) {
        let end = length + newKeys.dim(2)
        Functions.write(newKeys, into: keys, column: length)
        Functions.write(newValues, into: values, column: length)
        length = end
        return filled
    }

    /// All cached keys and values, `[batch, heads, length, size]`, without a copy.
    package var filled: (keys: Tensor, values: Tensor) {
        (keys.narrowed(axis: 2, 0..<length), values.narrowed(axis: 2, 0..<length))
    }

    /// Keeps the given rows of the batch, in that order; a row may be repeated.
    package func select(rows: Tensor) {
        keys = keys.selecting(axis: 0, rows)
        values = values.selecting(axis: 0, rows)
    }
}
