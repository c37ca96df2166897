/// Assigns ids to tokens in order of first use, so that texts compare as integers.
struct TokenTable {
    private var ids: [[UInt8]: Int32] = [:]

    mutating func id(of token: [UInt8]) -> Int32 {
        if let id = ids[token] { return id }
        let id = Int32(truncatingIfNeeded: ids.count)
        ids[token] = id
        return id
    }
}
