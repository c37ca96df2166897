import PEFTSupport

/// Resolved generation settings: the caller's parameters, then the model's `generation_config.json`, then the
/// defaults, combined as in transformers. There are two differences: without a length the default is 128 new tokens,
/// and the end tokens of `config.json` apply if `generation_config.json` has none.
package struct GenerationSettings: Sendable, Equatable {
    /// Sampling temperature; 0 is greedy decoding.
    package private(set) var temperature: Double
    package private(set) var topK: Int
    package private(set) var topP: Double
    package private(set) var minP: Double
    package private(set) var beams: Int
    package private(set) var lengthPenalty: Double
    package private(set) var earlyStopping: EarlyStopping
    package private(set) var noRepeatNgram: Int
    package private(set) var encoderNoRepeatNgram: Int
    package private(set) var repetitionPenalty: Double
    package private(set) var encoderRepetitionPenalty: Double
    package private(set) var badWords: [[Int]]
    package private(set) var suppressedTokens: Set<Int>
    package private(set) var suppressedFirstTokens: Set<Int>
    package private(set) var forcedFirstToken: Int?
    package private(set) var forcedLastTokens: [Int]
    package private(set) var endTokens: Set<Int>
    /// The token with which a decoder starts; `nil` for a decoder-only model.
    package private(set) var startToken: Int?
    package private(set) var renormalizes: Bool
    package let seed: UInt64
    /// One line for the user on settings taken from the file and unsupported ones; `nil` if there are none.
    package private(set) var note: String?
    private var maxNewTokens: Int?
    private var maxLength: Int?
    private var minNewTokens: Int?
    private var minLength: Int?

    static let defaultNewTokens = 128

    /// - Parameters:
    ///   - parameters: the caller's parameters.
    ///   - defaults: the model's own tokens.
    ///   - source: the file with the model's generation settings.
    /// - Throws: ``PEFTError`` for a value out of range in either.
    package init(_ parameters: GenerateParameters, defaults: GenerationDefaults, source: GenerationSource?) throws {
        try parameters.validate()
        let all = try source?.configuration() ?? GenerationConfiguration()
        let file = parameters.ignoresModelSettings ? GenerationConfiguration() : all
        var applied = Applied()

        endTokens = all.endTokens.map { Set($0) } ?? defaults.endTokens
        if endTokens != defaults.endTokens {
            applied.add("eos_token_id", endTokens.sorted().map(String.init).joined(separator: "|"))
        }
        startToken = defaults.startToken == nil ? nil : all.startToken ?? defaults.startToken
        if startToken != defaults.startToken { applied.add("decoder_start_token_id", "\(startToken ?? 0)") }
        if startToken != nil, let own = parameters.beginning.startToken { startToken = own }

        maxNewTokens = applied.choose("max_new_tokens", parameters.maxNewTokens, file.maxNewTokens)
        if maxNewTokens == nil { maxLength = applied.choose("max_length", nil, file.maxLength) }
        minNewTokens = applied.choose("min_new_tokens", parameters.minNewTokens, file.minNewTokens, neutral: 0)
        if minNewTokens == nil { minLength = applied.choose("min_length", nil, file.minLength, neutral: 0) }

        // The caller's choice of beams or sampling overrides the file's.
        let drawsByOption = parameters.temperature ?? 0 > 0
        beams =
            drawsByOption
            ? parameters.beams ?? 1 : applied.choose("num_beams", parameters.beams, file.beams, neutral: 1) ?? 1
        let samples = file.samples == true && parameters.beams ?? 1 == 1
        if let own = parameters.temperature {
            temperature = own
        } else if samples {
            temperature = file.temperature ?? 1
            guard temperature > 0 else {
                throw PEFTError(
                    "\(source?.name ?? ""): 'temperature' is 0 with 'do_sample'",
                    remedy: "set 'do_sample' to false, or give --temperature")
            }
            applied.add("do_sample", "true")
            applied.add("temperature", "\(temperature)")
        } else {
            temperature = 0
        }
        if temperature > 0 {
            // transformers samples from 50 tokens by default.
            topK = applied.choose("top_k", parameters.topK, file.topK ?? (samples ? 50 : nil), neutral: 0) ?? 0
            topP = applied.choose("top_p", parameters.topP, file.topP, neutral: 1) ?? 1
            minP = applied.choose("min_p", parameters.minP, file.minP, neutral: 0) ?? 0
        } else {
            (topK, topP, minP) = (parameters.topK ?? 0, parameters.topP ?? 1, parameters.minP ?? 0)
        }
        if beams > 1 {
            lengthPenalty =
                applied.choose("length_penalty", parameters.lengthPenalty, file.lengthPenalty, neutral: 1) ?? 1
            let own = parameters.earlyStopping.map { $0 ? EarlyStopping.whenComplete : .whenHopeless }
            earlyStopping =
                applied.choose("early_stopping", own, file.earlyStopping, neutral: .whenHopeless) ?? .whenHopeless
        } else {
            (lengthPenalty, earlyStopping) = (parameters.lengthPenalty ?? 1, .whenHopeless)
        }
        noRepeatNgram =
            applied.choose("no_repeat_ngram_size", parameters.noRepeatNgram, file.noRepeatNgram, neutral: 0) ?? 0
        encoderNoRepeatNgram =
            applied.choose("encoder_no_repeat_ngram_size", nil, file.encoderNoRepeatNgram, neutral: 0) ?? 0
        repetitionPenalty =
            applied.choose("repetition_penalty", parameters.repetitionPenalty, file.repetitionPenalty, neutral: 1)
            ?? 1
        encoderRepetitionPenalty =
            applied.choose("encoder_repetition_penalty", nil, file.encoderRepetitionPenalty, neutral: 1) ?? 1
        // As in transformers, a single end token isn't a bad word.
        let ends = endTokens
        badWords = (file.badWords ?? []).filter { $0.count > 1 || !ends.contains($0[0]) }
        applied.count("bad_words_ids", badWords.count)
        suppressedTokens = Set(file.suppressedTokens ?? [])
        applied.count("suppress_tokens", suppressedTokens.count)
        suppressedFirstTokens = Set(file.suppressedFirstTokens ?? [])
        applied.count("begin_suppress_tokens", suppressedFirstTokens.count)
        forcedFirstToken = applied.choose(
            "forced_bos_token_id", parameters.beginning.firstToken, file.forcedFirstToken)
        let readsModel = source?.isModelConfiguration == true && !parameters.ignoresModelSettings
        forcedLastTokens = readsModel ? defaults.forcedEndTokens : file.forcedLastTokens ?? []
        if !forcedLastTokens.isEmpty {
            applied.add("forced_eos_token_id", forcedLastTokens.map(String.init).joined(separator: "|"))
        }
        renormalizes = file.renormalizes ?? false
        if renormalizes { applied.add("renormalize_logits", "true") }
        seed = parameters.seed
        if let source { note = applied.note(source.name, unsupported: file.unsupported) }
    }

    /// Maximum number of new tokens after `begun` tokens: a decoder-only model's prompt, or the start token.
    /// - Throws: ``PEFTError`` if the file's `max_length` leaves no room.
    func maxNewTokens(after begun: Int) throws -> Int {
        if let maxNewTokens { return maxNewTokens }
        guard let maxLength else { return Self.defaultNewTokens }
        guard maxLength > begun else {
            throw PEFTError(
                "the prompt has \(begun) tokens, but 'max_length' in the model's generation settings is \(maxLength)",
                remedy: "shorten the prompt, or set --max-new-tokens")
        }
        return maxLength - begun
    }

    /// Minimum number of new tokens after `begun` tokens.
    package func minNewTokens(after begun: Int) -> Int { minNewTokens ?? max(0, (minLength ?? 0) - begun) }

    /// The settings by name, for reports.
    package var settings: [String: JSON] {
        var values: [String: JSON] = ["beams": .integer(beams), "noRepeatNgram": .integer(noRepeatNgram)]
        if maxNewTokens == nil, let maxLength {
            values["maxLength"] = .integer(maxLength)
        } else {
            values["maxNewTokens"] = .integer(maxNewTokens ?? Self.defaultNewTokens)
        }
        if repetitionPenalty != 1 { values["repetitionPenalty"] = .number(repetitionPenalty) }
        if temperature > 0 { values["temperature"] = .number(temperature) }
        return values
    }

    /// Whether logits are used unmodified.
    var leavesScores: Bool {
        noRepeatNgram == 0 && encoderNoRepeatNgram == 0 && repetitionPenalty == 1 && encoderRepetitionPenalty == 1
            && badWords.isEmpty && suppressedTokens.isEmpty && suppressedFirstTokens.isEmpty
            && forcedFirstToken == nil && forcedLastTokens.isEmpty && minNewTokens ?? 0 == 0 && minLength ?? 0 == 0
            && !renormalizes
    }

    /// Settings of the file that take effect.
    private struct Applied {
        private var parts: [String] = []

        mutating func add(_ key: String, _ value: String) { parts.append("\(key) \(value)") }

        mutating func count(_ key: String, _ count: Int) { if count > 0 { add(key, "(\(count))") } }

        /// The caller's value or else the file's, which is recorded unless it is neutral.
        mutating func choose<Value: Equatable>(
            _ key: String, _ own: Value?, _ file: Value?, neutral: Value? = nil
        ) -> Value? {
            guard own == nil, let file else { return own }
            if file != neutral { add(key, "\(file)") }
            return file
        }

        func note(_ file: String, unsupported: [String]) -> String? {
            let ignored =
                unsupported.isEmpty ? [] : ["ignores \(unsupported.joined(separator: ", ")), which is not supported"]
            let used = parts.isEmpty ? [] : ["applies \(parts.joined(separator: ", "))"]
            guard !(used + ignored).isEmpty else { return nil }
            return "generation \((used + ignored).joined(separator: " and ")) of the model's \(file)"
                + (parts.isEmpty ? "" : "; options override it")
        }
    }
}

extension GenerationSettings {
    /// The settings with which a model generates.
    package init(_ parameters: GenerateParameters, for model: any LanguageModel) throws {
        try self.init(parameters, defaults: model.generationDefaults, source: model.folderSettings.generation)
    }
}
