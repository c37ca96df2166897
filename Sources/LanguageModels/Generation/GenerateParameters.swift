import Support

/// How to choose the next tokens. What is `nil` follows the model's `generation_config.json` and, where that is silent too,
/// the default in parentheses; see ``GenerationSettings``.
public struct GenerateParameters: Sendable, Equatable {
    /// Maximum number of new tokens for one prompt (128).
    public var maxNewTokens: Int?
    /// The end token can't come before this many new tokens (0).
    public var minNewTokens: Int?
    /// 0 picks the likeliest token; above 0, scores are divided by it and a token is sampled (0).
    public var temperature: Double?
    /// Sample among the `topK` likeliest tokens; 0 means all (0).
    public var topK: Int?
    /// Sample among the likeliest tokens that together have this probability (1; Holtzman et al. 2020).
    public var topP: Double?
    /// Sample among the tokens that have at least this share of the likeliest token's probability (0; Nguyen et al. 2024).
    public var minP: Double?
    /// Continuations kept per prompt; above 1 it is beam search (1).
    public var beams: Int?
    /// Exponent of the length that a beam's score is divided by; above 0 favors long texts (1; Wu et al. 2016).
    public var lengthPenalty: Double?
    /// Stop a prompt's search as soon as `beams` texts are complete (false).
    public var earlyStopping: Bool?
    /// Length of the token sequences that may not come twice in a text; 0 allows all (0; Paulus et al. 2018).
    public var noRepeatNgram: Int?
    /// What the scores of tokens that have occurred are divided by, or multiplied by where they are negative (1; Keskar et
    /// al. 2019).
    public var repetitionPenalty: Double?
    /// Whether `generation_config.json` is left unread, but for its end and start tokens.
    public var ignoresModelSettings = false
    /// Seed of what is sampled.
    public var seed: UInt64

    public init(
        maxNewTokens: Int? = nil, minNewTokens: Int? = nil, temperature: Double? = nil, topK: Int? = nil,
        topP: Double? = nil, minP: Double? = nil, beams: Int? = nil, lengthPenalty: Double? = nil,
        earlyStopping: Bool? = nil, noRepeatNgram: Int? = nil, repetitionPenalty: Double? = nil, seed: UInt64 = 0
    ) {
        (self.maxNewTokens, self.minNewTokens) = (maxNewTokens, minNewTokens)
        (self.temperature, self.topK, self.topP, self.minP) = (temperature, topK, topP, minP)
        (self.beams, self.lengthPenalty, self.earlyStopping) = (beams, lengthPenalty, earlyStopping)
        (self.noRepeatNgram, self.repetitionPenalty, self.seed) = (noRepeatNgram, repetitionPenalty, seed)
    }

    /// - Throws: ``PEFTError`` naming the value that is out of range.
    public func validate() throws {
        if let maxNewTokens, maxNewTokens < 1 {
            throw PEFTError("max-new-tokens is \(maxNewTokens)", remedy: "use 1 or more")
        }
        if let minNewTokens, minNewTokens < 0 || minNewTokens > maxNewTokens ?? .max {
            let upper = maxNewTokens.map { "a value from 0 to \($0)" } ?? "0 or more"
            throw PEFTError("min-new-tokens is \(minNewTokens)", remedy: "use \(upper)")
        }
        if let temperature, temperature < 0 || !temperature.isFinite {
            throw PEFTError("the temperature is \(temperature)", remedy: "use 0 (greedy) or more")
        }
        if let topK, topK < 0 { throw PEFTError("top-k is \(topK)", remedy: "use 0 (all) or more") }
        if let topP, !(topP > 0 && topP <= 1) {
            throw PEFTError("top-p is \(topP)", remedy: "use a value above 0 and up to 1")
        }
        if let minP, !(0...1 ~= minP) { throw PEFTError("min-p is \(minP)", remedy: "use a value from 0 to 1") }
        if let noRepeatNgram, noRepeatNgram < 0 {
            throw PEFTError(
                "no-repeat-ngram is \(noRepeatNgram)", remedy: "use 0 (off) or more")
        }
        if let repetitionPenalty, !(repetitionPenalty > 0 && repetitionPenalty.isFinite) {
            throw PEFTError(
                "the repetition penalty is \(repetitionPenalty)", remedy: "use a value above 0; 1 turns it off")
        }
        if let beams, beams < 1 { throw PEFTError("beams is \(beams)", remedy: "use 1 or more") }
    }
}
