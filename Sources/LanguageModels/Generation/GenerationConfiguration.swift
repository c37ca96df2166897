import PEFTSupport

/// The values in `generation_config.json`, named after transformers' keys; `nil` if absent.
package struct GenerationConfiguration: Sendable, Equatable {
    package var maxNewTokens: Int?
    /// Maximum length of a sequence, including a decoder-only model's prompt or an encoder-decoder's start token.
    package var maxLength: Int?
    /// Minimum number of new tokens.
    package var minNewTokens: Int?
    /// Minimum length of a sequence, counted like ``maxLength``.
    package var minLength: Int?
    /// `do_sample`: whether to sample instead of greedy decoding.
    package var samples: Bool?
    package var temperature: Double?
    package var topK: Int?
    package var topP: Double?
    package var minP: Double?
    package var beams: Int?
    package var lengthPenalty: Double?
    package var earlyStopping: EarlyStopping?
    package var repetitionPenalty: Double?
    /// Repetition penalty of tokens that are not in the encoder's input or the prompt: above 1 favors the input's
    /// tokens.
    package var encoderRepetitionPenalty: Double?
    package var noRepeatNgram: Int?
    /// Size of n-grams of the encoder's input or the prompt that may not be generated.
    package var encoderNoRepeatNgram: Int?
    /// Token sequences that may not be generated.
    package var badWords: [[Int]]?
    /// Tokens that may never be generated.
    package var suppressedTokens: [Int]?
    /// Tokens that may not be generated first.
    package var suppressedFirstTokens: [Int]?
    /// `forced_bos_token_id`: the first generated token.
    package var forcedFirstToken: Int?
    /// `forced_eos_token_id`: tokens to end with when the maximum length is reached.
    package var forcedLastTokens: [Int]?
    package var endTokens: [Int]?
    /// The token with which an encoder-decoder's decoder starts.
    package var startToken: Int?
    /// Whether scores are renormalized to log-probabilities after processing.
    package var renormalizes: Bool?
    /// Unsupported keys whose values would change the output.
    package var unsupported: [String] = []

    /// Unsupported keys, with the value that has no effect.
    private static let foreignKeys: [(key: String, neutral: JSON)] = [
        ("typical_p", 1), ("epsilon_cutoff", 0), ("eta_cutoff", 0), ("top_h", .null), ("num_beam_groups", 1),
        ("diversity_penalty", 0), ("guidance_scale", 1), ("exponential_decay_length_penalty", .null),
        ("sequence_bias", .null), ("stop_strings", .null), ("watermarking_config", .null), ("constraints", .null),
        ("force_words_ids", .null), ("penalty_alpha", 0), ("dola_layers", .null), ("num_return_sequences", 1),
        ("max_time", .null), ("token_healing", false), ("remove_invalid_values", false),
    ]

    /// - Throws: ``PEFTError`` that names a key with an invalid value.
    init(_ json: JSON, file: String) throws {
        let read = Reader(json: json, file: file)
        maxNewTokens = try read.integer("max_new_tokens", 1...)
        maxLength = try read.integer("max_length", 1...)
        minNewTokens = try read.integer("min_new_tokens", 0...)
        minLength = try read.integer("min_length", 0...)
        samples = try read.boolean("do_sample")
        temperature = try read.number("temperature", "of at least 0") { $0 >= 0 }
        topK = try read.integer("top_k", 0...)
        topP = try read.number("top_p", "above 0 and up to 1") { $0 > 0 && $0 <= 1 }
        minP = try read.number("min_p", "from 0 to 1") { 0...1 ~= $0 }
        beams = try read.integer("num_beams", 1...)
        lengthPenalty = try read.number("length_penalty", "finite") { $0.isFinite }
        earlyStopping = try read.earlyStopping("early_stopping")
        repetitionPenalty = try read.number("repetition_penalty", "above 0") { $0 > 0 }
        encoderRepetitionPenalty = try read.number("encoder_repetition_penalty", "above 0") { $0 > 0 }
        noRepeatNgram = try read.integer("no_repeat_ngram_size", 0...)
        encoderNoRepeatNgram = try read.integer("encoder_no_repeat_ngram_size", 0...)
        badWords = try read.sequences("bad_words_ids")
        suppressedTokens = try read.tokens("suppress_tokens")
        suppressedFirstTokens = try read.tokens("begin_suppress_tokens")
        forcedFirstToken = try read.integer("forced_bos_token_id", 0...)
        forcedLastTokens = try read.tokens("forced_eos_token_id")
        endTokens = try read.tokens("eos_token_id")
        startToken = try read.integer("decoder_start_token_id", 0...) ?? read.integer("bos_token_id", 0...)
        renormalizes = try read.boolean("renormalize_logits")
        unsupported = Self.foreignKeys.compactMap { key, neutral in
            guard let value = json[key], value != .null, value != neutral, value.double != neutral.double ?? .nan
            else { return nil }
            return key
        }
    }

    init() {}

    /// Reads single values, with errors that name the key.
    private struct Reader {
        let json: JSON
        let file: String

        /// A key's value; `nil` for null, as for a key that is not there.
        private func value(_ key: String) -> JSON? {
            // In an expression of type JSON, a nil would be JSON's null.
            guard let value = json[key], value != .null else { return nil }
            return value
        }

        private func malformed(_ key: String, _ remedy: String) -> PEFTError {
            PEFTError("\(file): '\(key)' is \(value(key)?.text(indent: nil) ?? "null")", remedy: remedy)
        }

        func integer(_ key: String, _ range: PartialRangeFrom<Int>) throws -> Int? {
            guard let value = value(key) else { return nil }
            guard let number = value.int, range.contains(number), number <= Int(Int32.max) else {
                throw malformed(key, "use an integer of at least \(range.lowerBound)")
            }
            return number
        }

        func number(_ key: String, _ range: String, _ isValid: (Double) -> Bool) throws -> Double? {
            guard let value = value(key) else { return nil }
            guard let number = value.double, isValid(number) else {
                throw malformed(key, "use a number \(range)")
            }
            return number
        }

        func boolean(_ key: String) throws -> Bool? {
            guard let value = value(key) else { return nil }
            guard let flag = value.bool else { throw malformed(key, "use true or false") }
            return flag
        }

        func earlyStopping(_ key: String) throws -> EarlyStopping? {
            guard let value = value(key) else { return nil }
            if let flag = value.bool { return flag ? .whenComplete : .whenHopeless }
            guard value.string == "never" else { throw malformed(key, "use true, false or \"never\"") }
            return .never
        }

        /// One token id or a list of them.
        func tokens(_ key: String) throws -> [Int]? {
            guard let value = value(key) else { return nil }
            let list = value.int.map { [$0] } ?? (value.array ?? []).compactMap(\.int)
            guard list.count == value.array?.count ?? 1 else {
                throw malformed(key, "use a token id or a list of token ids")
            }
            return list.filter { $0 >= 0 }
        }

        func sequences(_ key: String) throws -> [[Int]]? {
            guard let value = value(key) else { return nil }
            let lists = (value.array ?? []).map { ($0.array ?? []).compactMap(\.int) }
            guard let array = value.array, zip(array, lists).allSatisfy({ $0.array?.count == $1.count }),
                !lists.contains(where: \.isEmpty)
            else { throw malformed(key, "use a list of lists of token ids") }
            return lists
        }
    }
}

/// When beam search stops: transformers' `early_stopping`.
public enum EarlyStopping: Sendable, Equatable, CustomStringConvertible {
    /// As soon as there are as many complete sequences as beams: `true`.
    case whenComplete
    /// When no running beam is better than the worst complete sequence at its current length: `false`.
    case whenHopeless
    /// When no running beam could become better at any length: `"never"`.
    case never

    /// The value in the file.
    public var description: String {
        switch self {
        case .whenComplete: "true"
        case .whenHopeless: "false"
        case .never: "never"
        }
    }
}
