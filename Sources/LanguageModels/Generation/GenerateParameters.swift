import Support

/// How to choose the next tokens.
public struct GenerateParameters: Sendable {
    /// Most tokens to make for one prompt.
    public var maxNewTokens: Int
    /// The end token can't come before so many others.
    public var minNewTokens: Int
    /// 0 picks the likeliest token; above, scores are divided by it and a token is drawn.
    public var temperature: Double
    /// Draw among the `topK` likeliest; 0 means all.
    public var topK: Int
    /// Draw among the likeliest tokens that together have this probability (Holtzman et al. 2020).
    public var topP: Double
    /// Continuations kept per prompt; above 1 it is beam search.
    public var beams: Int
    /// Exponent of the length that a beam's score is divided by; above 0 favours long texts (Wu et al. 2016).
    public var lengthPenalty: Double
    /// Stop a prompt's search as soon as `beams` texts are complete.
    public var earlyStopping: Bool
    /// Length of the token sequences that may not come twice in a text; 0 allows all (Paulus et al. 2018).
    public var noRepeatNgram: Int
    public var seed: UInt64

    public init(
        maxNewTokens: Int = 128, minNewTokens: Int = 0, temperature: Double = 0, topK: Int = 0, topP: Double = 1,
        beams: Int = 1,
        lengthPenalty: Double = 1, earlyStopping: Bool = false, noRepeatNgram: Int = 0, seed: UInt64 = 0
    ) {
        (self.maxNewTokens, self.minNewTokens) = (maxNewTokens, minNewTokens)
        (self.temperature, self.topK, self.topP) = (temperature, topK, topP)
        (self.beams, self.lengthPenalty, self.earlyStopping) = (beams, lengthPenalty, earlyStopping)
        (self.noRepeatNgram, self.seed) = (noRepeatNgram, seed)
    }

    /// - Throws: ``PEFTError`` naming the value that is out of range.
    public func validate() throws {
        guard maxNewTokens >= 1 else {
            throw PEFTError("\(maxNewTokens) new tokens were asked for", remedy: "at least 1 has to be")
        }
        guard minNewTokens >= 0, minNewTokens <= maxNewTokens else {
            throw PEFTError(
                "at least \(minNewTokens) new tokens were asked for", remedy: "it has to be in 0 … \(maxNewTokens)")
        }
        guard temperature >= 0, temperature.isFinite else {
            throw PEFTError("the temperature is \(temperature)", remedy: "it has to be 0 (greedy) or more")
        }
        guard topK >= 0 else { throw PEFTError("top-k is \(topK)", remedy: "it has to be 0 (all) or more") }
        guard topP > 0, topP <= 1 else {
            throw PEFTError("top-p is \(topP)", remedy: "it has to be in 0 … 1, 0 excluded")
        }
        guard noRepeatNgram >= 0 else {
            throw PEFTError(
                "the n-gram that may not repeat is \(noRepeatNgram) tokens", remedy: "it has to be 0 (off) or more")
        }
        guard beams >= 1 else { throw PEFTError("\(beams) beams were asked for", remedy: "at least 1 has to be") }
        guard beams == 1 || temperature == 0 else {
            throw PEFTError("beam search doesn't draw tokens", remedy: "use either beams or a temperature")
        }
    }
}
