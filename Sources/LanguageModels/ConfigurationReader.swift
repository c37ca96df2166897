import PEFTSupport
import Torch

/// Reads typed values from `config.json`, with errors that name the key.
struct ConfigurationReader {
    let json: JSON

    /// - Parameter defaults: values of keys that the file lacks.
    init(json: JSON, defaults: [String: JSON] = [:]) {
        self.json = defaults.isEmpty ? json : .object(defaults.merging(json.object ?? [:]) { $1 })
    }

    /// Keys of transformers' decoder classes that change neither training nor the logits: initialization (also of state spaces), caching,
    /// tokens of generation and of packed datasets, layers for speculative decoding, how a matmul is split among devices and in which order it is summed,
    /// and the dropout of a head for another task.
    static let irrelevantKeys: Set<String> = [
        "initializer_range", "use_cache", "bos_token_id", "pad_token_id", "eod_token_id", "pretraining_tp",
        "init_std", "slow_but_exact", "is_decoder", "classifier_dropout", "num_mtp_layers",
        "mamba_chunk_size", "num_logits_to_keep", "chunk_size", "expand", "use_mamba_kernels", "time_step_max",
        "time_step_floor", "rescale_prenorm_residual", "residual_in_fp32", "mamba_ssm_cache_dtype",
        "moe_shared_expert_overlap", "num_nextn_predict_layers", "mtp_layers_block_type",
    ]

    /// The same of encoder-decoders, whose padding token is read.
    static let irrelevantEncoderDecoderKeys = irrelevantKeys.subtracting(["pad_token_id"]).union([
        "is_encoder_decoder", "initializer_factor",
    ])

    /// The same of encoders: settings of heads for other tasks, and of the order in which a matmul is summed.
    static let irrelevantEncoderKeys: Set<String> = [
        "initializer_range", "initializer_cutoff_factor", "use_cache", "bos_token_id", "eos_token_id", "cls_token_id",
        "sep_token_id", "tie_word_embeddings", "decoder_bias", "deterministic_flash_attn", "sparse_prediction",
        "sparse_pred_ignore_index", "summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout",
        "legacy",
    ]

    /// The same without a key.
    func without(_ key: String) -> ConfigurationReader {
        ConfigurationReader(json: .object((json.object ?? [:]).filter { $0.key != key }))
    }

    /// What a number of `config.json` counts, with its largest value. Sizes far beyond those of any model are rejected,
    /// so that no product of them overflows and no outline needs unbounded memory.
    enum Size: Int {
        case layers = 1_024
        case heads = 4_096
        case headSize = 16_384
        /// Of hidden states, feed-forward networks and small tables.
        case width = 1_048_576
        case vocabulary = 16_777_216
        /// Positions and distances.
        case length = 1_000_000_000
    }

    /// A size of at least 1.
    func integer(_ key: String, _ size: Size, default fallback: Int? = nil) throws -> Int {
        try integer(key, default: fallback, in: 1...size.rawValue)
    }

    func integer(_ key: String, default fallback: Int? = nil, in range: ClosedRange<Int>) throws -> Int {
        guard let value = json[key], value != .null else {
            if let fallback { return fallback }
            throw PEFTError("config.json has no '\(key)'", remedy: "add it as an integer")
        }
        guard let number = value.int, range.contains(number) else {
            throw PEFTError(
                "config.json: '\(key)' is \(value.text(indent: nil))",
                remedy: "use an integer from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    func number(_ key: String, default fallback: Double) throws -> Double {
        guard let value = json[key], value != .null else { return fallback }
        guard let number = value.double else {
            throw PEFTError("config.json: '\(key)' is \(value.text(indent: nil))", remedy: "use a number")
        }
        return number
    }

    /// A list of so many numbers; 1 by default.
    func numbers(_ key: String, count: Int) throws -> [Double] {
        guard let value = json[key], value != .null else { return Array(repeating: 1, count: count) }
        let list = (value.array ?? []).compactMap(\.double)
        guard list.count == count, value.array?.count == count else {
            throw PEFTError(
                "config.json: '\(key)' is \(value.text(indent: nil))", remedy: "use a list of \(count) numbers")
        }
        return list
    }

    func boolean(_ key: String, default fallback: Bool) throws -> Bool {
        guard let value = json[key], value != .null else { return fallback }
        guard let flag = value.bool else {
            throw PEFTError(
                "config.json: '\(key)' is \(value.text(indent: nil))", remedy: "use true or false")
        }
        return flag
    }

    func string(_ key: String, default fallback: String) throws -> String {
        guard let value = json[key], value != .null else { return fallback }
        guard let text = value.string else {
            throw PEFTError("config.json: '\(key)' is \(value.text(indent: nil))", remedy: "use a string")
        }
        return text
    }

    /// A key's object; `nil` for one that is empty, null or missing.
    func filledObject(_ key: String) -> JSON? {
        // In an expression of type JSON, a nil would be JSON's null.
        guard let value = json[key], let fields = value.object, !fields.isEmpty else { return nil }
        return value
    }

    /// One token id or a list of them.
    func tokens(_ key: String, default fallback: [Int]) throws -> [Int] {
        guard let value = json[key], value != .null else { return fallback }
        if let one = value.int { return [one] }
        guard let list = value.array?.compactMap(\.int), list.count == value.array?.count else {
            throw PEFTError(
                "config.json: '\(key)' is \(value.text(indent: nil))",
                remedy: "use a token id or a list of token ids")
        }
        return list
    }

    /// A length of at least 1; `null` means none.
    func optionalInteger(_ key: String, default fallback: Int?) throws -> Int? {
        guard let value = json[key] else { return fallback }
        return value == .null ? nil : try integer(key, .length)
    }

    /// A number above 0; `null` means none.
    func optionalNumber(_ key: String, default fallback: Double?) throws -> Double? {
        guard let value = json[key] else { return fallback }
        guard value != .null else { return nil }
        guard let number = value.double, number > 0 else {
            throw PEFTError("config.json: '\(key)' is \(value.text(indent: nil))", remedy: "use a number above 0")
        }
        return number
    }

    func activation(_ key: String, default fallback: String) throws -> Activation {
        let name = try string(key, default: fallback)
        guard let activation = Activation(huggingFaceName: name) else {
            throw PEFTError(
                "config.json: '\(key)' is '\(name)', which is not supported",
                remedy: "use one of silu, gelu, gelu_new, gelu_pytorch_tanh and relu")
        }
        return activation
    }

    /// Number of query heads, number of key-value heads, and head size.
    ///
    /// The parameters are the defaults of missing fields; without `keyHeads` the key-value heads default to the query
    ///   heads.
    func heads(count: Int, keyHeads: Int? = nil, headSize: Int) throws -> (Int, Int, Int) {
        let heads = try integer("num_attention_heads", .heads, default: count)
        let isNull = json["num_key_value_heads"] == .null
        let keyHeads = try isNull ? heads : integer("num_key_value_heads", .heads, default: keyHeads ?? heads)
        let size = try integer("head_dim", .headSize, default: headSize)
        guard heads.isMultiple(of: keyHeads) else {
            throw PEFTError(
                "config.json: \(heads) attention heads aren't divisible by \(keyHeads) key-value heads",
                remedy: "make 'num_attention_heads' a multiple of 'num_key_value_heads'")
        }
        return (heads, keyHeads, size)
    }
}
