import Foundation
import Torch
import TorchNN

/// Buckets of relative positions (Raffel et al. 2020, section 2.1): exact for short distances, logarithmic for longer
/// ones; half of the buckets are for keys after the query, if bidirectional.
struct RelativeBuckets {
    let count: Int
    let maximumDistance: Int
    let isBidirectional: Bool

    /// Whatever `relative_attention_num_buckets` says, transformers uses these.
    static let mpnet = RelativeBuckets(count: 32, maximumDistance: 128, isBidirectional: true)

    /// The bucket of a key's position relative to the query's.
    func bucket(_ relative: Int) -> Int {
        var buckets = count
        var result = 0
        var distance = max(0, -relative)
        if isBidirectional {
            buckets /= 2
            if relative > 0 { result = buckets }
            distance = abs(relative)
        }
        let exact = buckets / 2
        if distance < exact { return result + distance }
        // In fp32 and in this order, as in PyTorch: bucket boundaries depend on the rounding.
        let ratio = Foundation.log(Float(distance) / Float(exact))
        let span = Float(Foundation.log(Double(maximumDistance) / Double(exact)))
        let wide = exact + Int(ratio / span * Float(buckets - exact))
        return result + min(wide, buckets - 1)
    }

    /// The table's values `[buckets, heads]` of queries and keys at these positions, `[heads, queries, keys]`.
    func bias(_ table: Embedding, queries: Range<Int>, keys: Int) -> Tensor {
        // By distance key − query, starting at the last query's first key.
        let distances = queries.isEmpty || keys == 0 ? 0..<0 : (1 - queries.upperBound)..<(keys - queries.lowerBound)
        let known = distances.map { bucket($0) }
        var buckets: [Int] = []
        buckets.reserveCapacity(queries.count * keys)
        for query in queries { buckets.append(contentsOf: known[(queries.upperBound - 1 - query)...].prefix(keys)) }
        let ids = Tensor(buckets, shape: [queries.count, keys], device: table.weight.device)
        return table(ids).permuted(2, 0, 1).contiguous()
    }
}
