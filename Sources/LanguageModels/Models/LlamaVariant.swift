import PEFTSupport

/// Where families that share Llama's layers differ, as their `config.json` is read.
struct LlamaVariant: Sendable {
    /// Default number of key-value heads; `nil` for as many as query heads.
    let keyHeads: Int?
    /// Default size of a head; `nil` for the hidden size divided by the number of heads.
    let headSize: Int?
    let qkvBias: Bias
    let outputBias: Bias
    let feedForwardBias: Bias
    /// Whether queries and keys are normalized per head.
    let hasHeadNorms: Bool
    /// The sliding-window size of each of so many layers; `nil` for full attention.
    let windows: @Sendable (ConfigurationReader, Int) throws -> [Int?]

    enum Bias: Sendable {
        case always, never
        /// A key of `config.json` says so, false by default.
        case configured(String)

        func isPresent(_ read: ConfigurationReader) throws -> Bool {
            switch self {
            case .always: true
            case .never: false
            case .configured(let key): try read.boolean(key, default: false)
            }
        }
    }
}

extension AttentionWindows {
    /// Windows from `max_window_layers` on if `use_sliding_window` is true, or those of `layer_types` (Qwen2, Qwen3).
    static func fromConfiguredLayer(_ read: ConfigurationReader, layers: Int) throws -> [Int?] {
        let isUsed = try read.boolean("use_sliding_window", default: false)
        let first = try read.integer("max_window_layers", default: 28, in: 0...1_000_000)
        return try AttentionWindows.read(
            read, layers: layers, window: isUsed ? read.optionalInteger("sliding_window", default: 4096) : nil
        ) { $0 >= first }
    }
}
