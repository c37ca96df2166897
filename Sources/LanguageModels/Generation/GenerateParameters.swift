import PEFTSupport
import PEFTTokenizers

/// How a generated text begins, in place of what the model's settings say.
package struct TextBeginning: Sendable, Equatable {
    /// The token with which an encoder-decoder's decoder starts.
    package var startToken: Int?
    /// The first generated token (`forced_bos_token_id`).
    package var firstToken: Int?

    package init(startToken: Int? = nil, firstToken: Int? = nil) {
        (self.startToken, self.firstToken) = (startToken, firstToken)
    }

    /// The beginning of texts of a language, given its token: a language at the end of targets is where the decoder starts
    /// in training.
    package init(language: Int?, _ tokenizer: Tokenizer, _ defaults: GenerationDefaults) {
        let isStart = tokenizer.hasLanguageAtEnd && defaults.startsWithLastToken
        self.init(startToken: isStart ? language : nil, firstToken: isStart ? nil : language)
    }
}

/// Generation parameters. `nil` uses the model's `generation_config.json` or, if it has no value, the default in
/// parentheses; see ``GenerationSettings``.
public struct GenerateParameters: Sendable, Equatable {
    /// Maximum number of new tokens per prompt (128).
    public var maxNewTokens: Int?
    /// Minimum number of new tokens before the end token (0).
    public var minNewTokens: Int?
    /// Sampling temperature; 0 is greedy decoding (0).
    public var temperature: Double?
    /// Sample from the `topK` most likely tokens; 0 means all (0).
    public var topK: Int?
    /// Sample from the most likely tokens with this total probability (1; Holtzman et al. 2020).
    public var topP: Double?
    /// Sample from the tokens with at least this fraction of the most likely token's probability (0; Nguyen et al.
    /// 2024).
    public var minP: Double?
    /// Number of beams; above 1 selects beam search (1).
    public var beams: Int?
    /// Exponent of the length by which a beam's score is divided; above 0 favors longer sequences (1; Wu et al.
    /// 2016).
    public var lengthPenalty: Double?
    /// Stop beam search as soon as `beams` sequences are complete (false).
    public var earlyStopping: Bool?
    /// Size of n-grams that may not occur twice in a sequence; 0 turns it off (0; Paulus et al. 2018).
    public var noRepeatNgram: Int?
    /// Factor by which positive logits of tokens that have occurred are divided, and negative ones multiplied (1;
    /// Keskar et al. 2019).
    public var repetitionPenalty: Double?
    /// Whether `generation_config.json` is ignored, except for its end and start tokens.
    package var ignoresModelSettings = false
    /// How texts begin, for example in which language.
    package var beginning = TextBeginning()
    /// Seed of sampling.
    public var seed: UInt64

    /// Settings that are left out are the model's own (`generation_config.json`).
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
    package func validate() throws {
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
