import PEFT

/// What decides keys and values of a sequence besides its tokens.
struct PrefixOwner: Equatable {
    /// Key of the adapter in the ``AdapterSet``; `nil` for the base.
    let adapter: String?
    /// Where in the prompt the adapter begins to act; -1 if it doesn't.
    let start: Int
    /// Number of first tokens that have the base's keys and values.
    let baseLength: Int

    static let base = PrefixOwner(adapter: nil, start: -1, baseLength: .max)

    /// Number of tokens with the same keys and values, of those that two sequences have in common.
    func shared(_ common: Int, with other: PrefixOwner) -> Int {
        self == other ? common : min(common, baseLength, other.baseLength)
    }
}

/// Which sequences of an adapter share keys and values.
struct PrefixRule {
    private let key: String
    private let isBaseLike: Bool
    /// The tokens from whose last occurrence in a prompt on the adapter acts; empty if it acts on all tokens.
    private let invocation: [Int]
    private let sharesBeginning: Bool

    /// - Parameter canShareBase: whether the adapter has no virtual tokens and changes nothing that all sequences share.
    init(_ adapter: Adapter, key: String, canShareBase: Bool) {
        self.key = key
        isBaseLike = canShareBase && adapter.leavesKeysAndValues
        invocation = adapter.invocation
        sharesBeginning = canShareBase && adapter.actsFromInvocation
    }

    func owner(of prompt: [Int]) -> PrefixOwner {
        guard !isBaseLike else { return .base }
        guard !invocation.isEmpty else { return PrefixOwner(adapter: key, start: 0, baseLength: 0) }
        let start = lastStart(in: prompt)
        guard sharesBeginning else { return PrefixOwner(adapter: key, start: start ?? -1, baseLength: 0) }
        return start.map { PrefixOwner(adapter: key, start: $0, baseLength: $0) } ?? .base
    }

    /// Where the last occurrence of the invocation starts.
    private func lastStart(in prompt: [Int]) -> Int? {
        guard invocation.count <= prompt.count else { return nil }
        return (0...(prompt.count - invocation.count)).last {
            prompt[$0..<($0 + invocation.count)].elementsEqual(invocation)
        }
    }
}
