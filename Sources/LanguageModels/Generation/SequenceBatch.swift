import PEFTSupport
import Torch
import TorchNN

/// Continuous batching (Orca, Yu et al. 2022): sequences of any length join and leave a running batch between steps, and
/// one step may feed single tokens to some sequences and chunks of a prompt to others.
///
/// Each sequence has KV caches of its own, so that its outputs do not depend on the sequences beside it. Sequences of models
/// whose RoPE frequencies depend on the longest sequence are computed one by one.
package struct SequenceBatch {
    package let model: any LanguageModel
    /// Whether a step computes its sequences together; otherwise ``step(_:)`` accepts one sequence.
    package let isShared: Bool
    /// Whether a sequence may begin with keys and values of another. Those of an encoder-decoder depend on all of its prompt.
    package var sharesPrefixes: Bool { isShared && startToken == nil }
    /// The token that a decoder starts with, after its encoder has read the prompt; `nil` for a decoder-only model.
    package let startToken: Int?
    /// The model's device, which it looks up among its parameters.
    private let device: Device

    /// The tokens that a step feeds to one sequence.
    package struct Input {
        package let sequence: CachedSequence
        /// The next tokens; must not be empty. One at a time for an encoder-decoder.
        package let tokens: [Int]
        /// Whether the logits after the last token are returned.
        package let readsLogits: Bool

        /// The sequence's whole prompt, in which adapters look for their invocation; `nil` if its first tokens are it.
        package let prompt: [Int]?

        package init(_ sequence: CachedSequence, tokens: [Int], readsLogits: Bool = true, prompt: [Int]? = nil) {
            (self.sequence, self.tokens, self.readsLogits, self.prompt) = (sequence, tokens, readsLogits, prompt)
        }
    }

    /// - Throws: ``PEFTError`` if the model does not generate text.
    package init(_ model: any LanguageModel) throws {
        guard model.generates else {
            throw PEFTError(
                "this \(model.family) model is for \(model.head.task.rawValue) and does not generate text",
                remedy: "use a model that generates text")
        }
        self.model = model
        startToken = model.generationDefaults.startToken
        isShared = (model as? any CausalModel)?.hasFixedRotations ?? (model is any EncoderDecoder)
        device = model.device
    }

    /// Size of one token's keys and values in all caches, in bytes.
    package var bytesPerToken: Int {
        let values = model.namedModules().reduce(0) { sum, entry in
            guard let site = entry.module as? KeyValueSite, site.role == .decoder else { return sum }
            return sum + 2 * site.heads * site.headSize
        }
        return values * (model.precision?.type ?? .float32).size
    }

    /// Size of a sequence's states in layers without keys and values, in bytes.
    package var bytesPerSequence: Int {
        4 * model.namedModules().reduce(0) { $0 + (($1.module as? any RecurrentLayer)?.stateSize ?? 0) }
    }

    /// Maximum number of tokens of a sequence, virtual ones included; `nil` without a limit.
    package var positionLimit: Int? {
        [model.positionLimit, (model as? any CausalModel)?.rotationLimit].compactMap { $0 }.min()
    }

    /// Feeds tokens to sequences. With adapter routing, sequence i has route i.
    ///
    /// - Returns: logits of the token after the last one, `[inputs that read logits, vocabulary]`; `nil` if none does.
    /// - Throws: ``PEFTError`` for a token outside the vocabulary and a sequence that is too long. The sequences are then
    ///   unusable.
    package func step(_ inputs: [Input]) throws -> Tensor? {
        guard !inputs.isEmpty else { return nil }
        guard inputs.allSatisfy({ !$0.tokens.isEmpty }) else {
            throw PEFTError("a sequence has no tokens to feed", remedy: "use a nonempty prompt")
        }
        try model.requireKnown(inputs.map(\.tokens))
        return try withTorchErrors {
            try withoutGradients {
                try model.computing {
                    if isShared, let model = model as? any CausalModel { return model.step(inputs, device: device) }
                    if let model = model as? any EncoderDecoder { return try step(inputs, of: model) }
                    return try stepAlone(inputs)
                }
            }
        }
    }

    /// - Throws: ``PEFTError`` for a token outside the vocabulary, which adapters may enlarge.
    package func requireKnown(_ tokens: [Int]) throws { try model.requireKnown([tokens]) }

    /// Reads the prompts of an encoder-decoder's new sequences, which ``step(_:)`` does otherwise. With adapter routing,
    /// sequence i has route i.
    /// - Throws: ``PEFTError`` for a token outside the vocabulary and a prompt that is too long.
    package func start(_ sequences: [CachedSequence]) throws {
        guard let model = model as? any EncoderDecoder else { return }
        try withTorchErrors { try withoutGradients { try model.computing { try start(sequences, of: model) } } }
    }

    private func start(_ sequences: [CachedSequence], of model: some EncoderDecoder) throws {
        for (row, sequence) in sequences.enumerated() where !sequence.hasMemory {
            try model.requireKnown([sequence.source])
            // One after another: matmuls round otherwise with the tokens of others.
            RowRouting.within(rows: [row]) { model.start(sequence, device: device) }
            try checkTorchErrors()
        }
    }

    private func step(_ inputs: [Input], of model: some EncoderDecoder) throws -> Tensor? {
        guard inputs.allSatisfy({ $0.tokens.count == 1 }) else {
            throw PEFTError("an encoder-decoder's sequence has several tokens to feed", remedy: "feed one at a time")
        }
        try start(inputs.map(\.sequence), of: model)
        let logits = model.step(inputs.map { ($0.sequence, $0.tokens[0]) }, device: device)
        guard !inputs.allSatisfy(\.readsLogits) else { return logits }
        let read = inputs.indices.filter { inputs[$0].readsLogits }
        return read.isEmpty ? nil : logits.selecting(Tensor(read, device: device))
    }

    /// A sequence with the same cached tokens, to continue a prompt in several ways; `nil` if sequences are decoded one by
    /// one.
    package func copy(of sequence: CachedSequence) throws -> CachedSequence? {
        guard isShared else { return nil }
        return try withTorchErrors { withoutGradients { sequence.copy() } }
    }

    /// A sequence that begins with the first tokens of another, and the same virtual ones.
    /// - Parameters:
    ///   - length: number of tokens, at most those of the other; 0 for the virtual ones alone.
    ///   - capacity: number of tokens to reserve, without virtual ones.
    /// - Returns: `nil` without ``sharesPrefixes``, and for a part of a sequence in whose states later tokens are.
    package func prefix(of sequence: CachedSequence, length: Int, capacity: Int) throws -> CachedSequence? {
        guard sharesPrefixes, length <= sequence.length, length > 0 || sequence.columns > sequence.length else {
            return nil
        }
        guard sequence.states.isEmpty || length == sequence.length else { return nil }
        return try withTorchErrors { withoutGradients { sequence.prefix(length, capacity: capacity) } }
    }

    /// A step of the only sequence.
    private func stepAlone(_ inputs: [Input]) throws -> Tensor? {
        guard inputs.count == 1, let input = inputs.first else {
            throw PEFTError(
                "sequences of this \(model.family) model can't share a step", remedy: "decode them one by one")
        }
        let sequence = input.sequence
        var tokens = input.tokens[...]
        if sequence.state == nil {
            // The prefill excludes the last token, which the first decode step feeds.
            sequence.state = InvocationScope([input.prompt ?? input.tokens]).run {
                model.startDecoding(
                    PackedSequences([Array(tokens.dropLast())], device: device), capacity: sequence.capacity, beams: 1
                )
            }
            try checkTorchErrors()
            tokens = tokens.suffix(1)
        }
        var logits: Tensor?
        for token in tokens { logits = sequence.state?.step(Tensor([token], device: device)) }
        sequence.length += input.tokens.count
        return input.readsLogits ? logits : nil
    }
}

/// One step of sequences with caches of their own: the tokens of each attend to its cache and to each other.
private final class SequencesContext: AttentionContext {
    struct Part {
        let sequence: CachedSequence
        /// Its tokens among those of the step.
        let tokens: Range<Int>
        /// Its first column in the caches.
        let column: Int
        /// Length of its prefix, which the first step caches; 0 in later steps.
        let prefix: Int
        /// Whether it has a prefix or a prompt.
        let hasVirtualTokens: Bool
    }

    private let parts: [Part]
    /// Linear biases by head and column of each sequence, `[heads, longest]`.
    private let bias: [Tensor]

    init(_ parts: [Part], limit: Int?, biases: LinearBiases?, device: Device) {
        self.parts = parts
        let positions = checkedPositions(
            parts.flatMap { part in part.tokens.indices.map { part.column + $0 - part.tokens.lowerBound } },
            limit: limit)
        let longest = (positions.max() ?? -1) + 1
        let (plain, own) = (
            biases.map { $0(positions: longest, device: device) },
            biases.map { $0(positions: longest, hasVirtualTokens: true, device: device) }
        )
        bias = parts.compactMap { $0.hasVirtualTokens ? own : plain }
        super.init(positions: Tensor(positions, device: device), longest: longest)
    }

    override var sequenceOffsets: [Int] { [0] + parts.map(\.tokens.upperBound) }
    override var keepsRecurrentStates: Bool { true }
    override var keepsStatesApart: Bool { true }
    override func recurrentState(ofLayer layer: Int) -> RecurrentState? {
        .joined(parts.map { $0.sequence.states[layer] })
    }
    override func keep(_ state: RecurrentState, ofLayer layer: Int) {
        for (row, part) in parts.enumerated() { part.sequence.states[layer] = state.row(row) }
    }

    override func attend(
        _ q: Tensor, _ k: Tensor, _ v: Tensor, site: KeyValueSite, layer: Int, window: Int?, scale: Double,
        softcap: Double?, dropout: Double
    ) -> Tensor {
        let prefixes = parts.contains { $0.prefix > 0 } ? site.prefixes(forRows: parts.count) : []
        func output(_ row: Int, _ part: Part) -> Tensor {
            func own(_ x: Tensor) -> Tensor { parts.count == 1 ? x : x.narrowed(axis: 0, part.tokens) }
            if part.prefix > 0, let prefix = prefixes[row] {
                _ = part.sequence.write(
                    prefix.keys.to(k.dtype), prefix.values.to(v.dtype), layer: site.position ?? layer, column: 0)
            }
            let cached = part.sequence.write(
                own(k), own(v), layer: site.position ?? layer, column: part.column)
            return self.attend(
                own(q), row: row, to: cached, window: window, scale: scale, softcap: softcap,
                sinks: site.sinks?.tensor)
        }
        let index = site.position ?? layer
        let isPlain =
            bias.isEmpty && softcap == nil && site.sinks == nil && [q, k, v].allSatisfy { $0.dtype == .float32 }
            && q.device == .cpu && k.shape == v.shape
        let single = isPlain ? parts.indices.filter { parts[$0].tokens.count == 1 && parts[$0].prefix == 0 } : []
        guard single.count > 1 else {
            let outputs = parts.enumerated().map(output)
            return outputs.count == 1 ? outputs[0] : Tensor.concatenated(outputs)
        }
        // All sequences with one token in one call.
        let all = Tensor.empty(q.shape)
        let caches = single.map { row in
            let part = parts[row]
            let cache = part.sequence.reserve(index, from: part.column, to: part.column + 1, k, v)
            return (row: part.tokens.lowerBound, keys: cache.keys, values: cache.values, column: part.column)
        }
        Functions.decodeSequences(q, k, v, caches: caches, window: window, scale: scale, into: all)
        if single.count < parts.count {
            let known = Set(single)
            for (row, part) in parts.enumerated() where !known.contains(row) {
                all.narrowed(axis: 0, part.tokens).copy(from: output(row, part))
            }
        }
        return all
    }

    override func attend(_ q: Tensor, toLayer layer: Int, window: Int?, scale: Double, dropout: Double) -> Tensor {
        let outputs = parts.enumerated().map { row, part -> Tensor in
            let own = parts.count == 1 ? q : q.narrowed(axis: 0, part.tokens)
            let columns = part.column + part.tokens.count
            guard let cached = part.sequence.filled(layer: layer, columns: columns, size: q.dim(2)) else {
                return own
            }
            return attend(own, row: row, to: cached, window: window, scale: scale, softcap: nil, sinks: nil)
        }
        return outputs.count == 1 ? outputs[0] : Tensor.concatenated(outputs)
    }

    /// Attention of one sequence's queries to its cached keys and values `[columns, heads, size]`.
    private func attend(
        _ queries: Tensor, row: Int, to cached: (keys: Tensor, values: Tensor), window: Int?, scale: Double,
        softcap: Double?, sinks: Tensor?
    ) -> Tensor {
        var (keys, values) = cached
        let (columns, count) = (keys.dim(0), queries.dim(0))
        // A sequence's columns are its positions.
        var bias = bias.isEmpty ? nil : bias[row].narrowed(axis: 1, 0..<columns)
        guard count == 1 else {
            return Functions.packedAttention(
                queries, keys, values, bias: bias, queryOffsets: [0, count], keyOffsets: [0, columns],
                causal: true, window: window, scale: scale, softcap: softcap, sinks: sinks)
        }
        if let window, window < columns {
            let seen = (columns - window)..<columns
            (keys, values) = (keys.narrowed(axis: 0, seen), values.narrowed(axis: 0, seen))
            bias = bias?.narrowed(axis: 1, seen)
        }
        // Query heads that share a key head become its queries, and the biases of heads those of its queries.
        let mask = bias?.to(queries.dtype).reshaped(1, keys.dim(1), -1, keys.dim(0))
        func heads(_ x: Tensor) -> Tensor { x.transposed(0, 1).unsqueezed(0) }
        return Functions.attention(
            queries.reshaped(1, keys.dim(1), -1, queries.dim(2)), heads(keys), heads(values), mask: mask,
            scale: scale, softcap: softcap, sinks: sinks
        ).reshaped(queries.shape)
    }
}

extension CausalModel {
    /// A step of sequences with caches of their own.
    fileprivate func step(_ inputs: [SequenceBatch.Input], device: Device) -> Tensor? {
        let ids = inputs.flatMap(\.tokens)
        let offsets = inputs.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1.tokens.count) }
        let starts = inputs.contains { $0.sequence.isEmpty }
        // Virtual tokens precede a sequence's first tokens.
        let prompts = starts ? inputSite.prompts(forRows: inputs.count) : []
        let prefixes = starts ? prefixSites.first?.prefixes(forRows: inputs.count) ?? [] : []
        let embedded = RowRouting.within(offsets) { embed(Tensor(ids, device: device)) }
        var states: [Tensor] = []
        var parts: [SequencesContext.Part] = []
        var ends = [0]
        for (row, input) in inputs.enumerated() {
            let isStart = input.sequence.isEmpty
            let prompt = isStart && starts ? prompts[row] : nil
            let prefix = isStart && row < prefixes.count ? prefixes[row]?.keys.dim(0) ?? 0 : 0
            if let prompt { states.append(prompt) }
            states.append(embedded.narrowed(axis: 0, offsets[row]..<offsets[row + 1]))
            let end = ends[row] + (prompt?.dim(0) ?? 0) + input.tokens.count
            if isStart { input.sequence.columns = prefix }
            parts.append(
                SequencesContext.Part(
                    sequence: input.sequence, tokens: ends[row]..<end, column: input.sequence.columns, prefix: prefix,
                    hasVirtualTokens: prompt != nil || input.sequence.columns > input.sequence.length))
            ends.append(end)
        }
        let context = SequencesContext(
            parts, limit: positionLimit, biases: linearBiases, device: device)
        let isPlain = ends.last == embedded.dim(0)
        if isPlain { context.ids = Tensor(ids, device: device) }
        for input in inputs where input.sequence.prompt == nil { input.sequence.prompt = input.tokens }
        let firsts = inputs.indices.map { row in
            inputs[row].sequence.length - (parts[row].tokens.count - inputs[row].tokens.count)
        }
        let texts = InvocationScope(inputs.map { $0.prompt ?? $0.sequence.prompt ?? $0.tokens })
        var hidden = texts.within(ends, starts: firsts, device: device) {
            RowRouting.within(ends) { decode(isPlain ? embedded : Tensor.concatenated(states), context) }
        }
        for (part, input) in zip(parts, inputs) {
            input.sequence.length += input.tokens.count
            input.sequence.columns = part.column + part.tokens.count
        }
        let read = zip(inputs, parts).filter { $0.0.readsLogits }.map { $0.1.tokens.upperBound - 1 }
        guard !read.isEmpty else { return nil }
        if read.count < hidden.dim(0) { hidden = hidden.selecting(Tensor(read, device: device)) }
        return scores(hidden)
    }

    /// Whether a token's RoPE angles depend on its position only.
    fileprivate var hasFixedRotations: Bool {
        rereadLength == nil && !RotaryKinds.names(in: settings.json).contains { ["longrope", "su"].contains($0) }
    }

    /// Number of positions of a model whose RoPE angles depend on the sequence length beyond it.
    fileprivate var rotationLimit: Int? {
        guard RotaryKinds.names(in: settings.json).contains("dynamic") else { return nil }
        return settings.json["max_position_embeddings"]?.int ?? 2048
    }
}

/// RoPE types in `config.json`.
private enum RotaryKinds {
    static func names(in json: JSON) -> [String] {
        ["rope_scaling", "rope_parameters"].flatMap { key -> [String] in
            guard let parameters = json[key]?.object else { return [] }
            let nested = parameters.values.compactMap { $0["rope_type"] ?? $0["type"] }
            return ([parameters["rope_type"], parameters["type"]].compactMap { $0 } + nested).compactMap(\.string)
        }
    }
}
