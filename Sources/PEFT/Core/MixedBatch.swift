import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Mixed-adapter batches: each example may use another adapter, also of another method, and the base projections are
/// computed once for the whole batch (Punica, Chen et al. 2023; S-LoRA, Sheng et al. 2023).
public struct MixedBatch {
    package let set: AdapterSet
    /// Restricts each generated text, such as to JSON.
    package var constraint: (any TokenConstraint)?
    /// How the text of each prompt begins, where it differs from the model's settings.
    package var beginnings: [TextBeginning]?
    /// The model's projections by their path.
    private let linears: [String: Linear]

    /// - Parameter set: the adapters, all over one model.
    public init(_ set: AdapterSet) {
        self.set = set
        let named = set.model.namedModules().compactMap { path, module in (module as? Linear).map { (path, $0) } }
        linears = Dictionary(named, uniquingKeysWith: { $1 })
    }

    /// Runs a forward pass or generation in which example i uses adapter `rows[i]`; `nil` is the base model.
    ///
    /// The set may change between runs.
    /// - Throws: ``PEFTError`` for an unknown name or adapters that can't share a batch, and what `body` throws.
    public func run<Result>(_ rows: [String?], _ body: () throws -> Result) throws -> Result {
        guard RowRouting.current == nil else {
            throw PEFTError("mixed batches can't be nested", remedy: "run one after the other")
        }
        return try set.onBase {
            var routes: [String: Int] = [:]
            for case let name? in rows where routes[name] == nil {
                routes[name] = try set.route(of: name) { if let obstacle = try obstacle(name) { throw obstacle } }
            }
            let used = try routes.map { (adapter: try set.named($0), route: $1) }
            for (adapter, _) in used {
                for (path, site, _) in adapter.attached where !site.attached.isEmpty {
                    throw PEFTError(
                        "an adapter outside the set is active at \(path)", remedy: "deactivate it first")
                }
            }
            let replaced = used.flatMap { adapter, route in
                replacements(adapter).map { (site: $0.site, module: $0.module, route: route) }
            }
            defer { for (site, _, route) in replaced { site.clear(route: route) } }
            for (site, module, route) in replaced { _ = site.attach(module, route: route) }
            let routing = RowRouting(routes: rows.map { $0.flatMap { routes[$0] } ?? -1 }, isFrozen: set.isFrozen)
            return try withTorchErrors { try routing.run(body) }
        }
    }

    /// Continues each prompt with its own adapter, all in one batch.
    /// - Throws: ``PEFTError`` as ``run(_:_:)``, and for virtual tokens that can't share one KV cache.
    public func generate(
        _ prompts: [[Int]], adapters: [String?], parameters: GenerateParameters,
        onLastPosition: ((Int) -> Void)? = nil
    ) throws -> [[Int]] {
        try generate(
            prompts, numbers: Array(prompts.indices), adapters: adapters, parameters: parameters,
            onLastPosition: onLastPosition)
    }

    private func generate(
        _ prompts: [[Int]], numbers: [Int], adapters: [String?], parameters: GenerateParameters,
        onLastPosition: ((Int) -> Void)?
    ) throws -> [[Int]] {
        guard prompts.count == adapters.count else {
            throw PEFTError(
                "got \(adapters.count) adapters for \(prompts.count) prompts", remedy: "pass one adapter per prompt")
        }
        if let obstacle = try cacheObstacle(adapters) { throw obstacle }
        let generator = try Generator(set.model, parameters)
        return try run(adapters) {
            try generator.generate(
                prompts, constraint: constraint, numbers: numbers, beginnings: beginnings(numbers),
                onLastPosition: onLastPosition)
        }
    }

    /// Continues each prompt with its own adapter, in mixed-adapter batches where possible and adapter by adapter
    /// otherwise.
    ///
    /// - Parameters:
    ///   - prompts: token ids of each prompt.
    ///   - adapters: the name of each prompt's adapter; `nil` is the base model.
    ///   - parameters: settings of the generation.
    ///   - batchSize: maximum number of prompts in a batch.
    ///   - onProgress: called with the number of finished prompts.
    ///   - onLastPosition: called with the index of a prompt whose text ends because the model has no further
    ///     positions.
    public func generateAll(
        _ prompts: [[Int]], adapters: [String?], parameters: GenerateParameters, batchSize: Int = 16,
        onProgress: (Int) -> Void = { _ in }, onLastPosition: ((Int) -> Void)? = nil
    ) throws -> [[Int]] {
        guard prompts.count == adapters.count, batchSize > 0 else {
            throw PEFTError(
                "got \(adapters.count) adapters for \(prompts.count) prompts", remedy: "pass one adapter per prompt")
        }
        let generator = try Generator(set.model, parameters)
        var results = [[Int]](repeating: [], count: prompts.count)
        // Batches of similar length finish together.
        let order = prompts.indices.sorted { (prompts[$0].count, $0) > (prompts[$1].count, $1) }
        for start in stride(from: 0, to: order.count, by: batchSize) {
            let part = Array(order[start..<min(start + batchSize, order.count)])
            let names = part.map { adapters[$0] }
            let isShared = try Set(names).allSatisfy { try $0.flatMap { try obstacle($0) } == nil }
            if try isShared && cacheObstacle(names) == nil {
                let made = try generate(
                    part.map { prompts[$0] }, numbers: part, adapters: names, parameters: parameters,
                    onLastPosition: { onLastPosition?(part[$0]) })
                for (row, tokens) in zip(part, made) { results[row] = tokens }
            } else {
                for name in Set(names) {
                    let rows = part.filter { adapters[$0] == name }
                    try set.activate(name)
                    let made = try generator.generate(
                        rows.map { prompts[$0] }, constraint: constraint, numbers: rows,
                        beginnings: beginnings(rows),
                        onLastPosition: { onLastPosition?(rows[$0]) })
                    for (row, tokens) in zip(rows, made) { results[row] = tokens }
                }
            }
            onProgress(start + part.count)
        }
        return results
    }

    private func beginnings(_ prompts: [Int]) -> [TextBeginning]? {
        beginnings.map { all in prompts.map { all.indices.contains($0) ? all[$0] : TextBeginning() } }
    }

    // MARK: What can't share a batch

    /// Why an adapter can't share a batch with others; `nil` if it can.
    /// - Throws: ``PEFTError`` for an unknown name.
    package func obstacle(_ name: String) throws -> PEFTError? {
        let adapter = try set.named(name)
        // Except in encoders, the output layer runs on selected positions of all examples together.
        let sharesOutput = set.model.generates
        if adapter.layers != nil {
            return PEFTError(
                "adapter '\(name)' stacks the layers anew, which all rows of a batch share",
                remedy: "run it in a batch of its own")
        }
        if adapter.vocabulary?.replacesNumbers == true {
            return PEFTError(
                "adapter '\(name)' replaces the base's embeddings, which all rows of a batch share",
                remedy: "run it in a batch of its own")
        }
        for own in adapter.trained {
            let site = linears[own.owner]
            guard let site, !adapter.attached.contains(where: { $0.site === site }),
                own.owner != set.model.outputLayer || !sharesOutput
            else {
                return PEFTError(
                    "adapter '\(name)' (\(adapter.choice.label)) changes the model's own '\(own.path)', which all rows of a batch share",
                    remedy: "run it in a batch of its own")
            }
        }
        for (path, site, module) in adapter.attached {
            if site is ExpertLinear {
                return PEFTError(
                    "adapter '\(name)' adapts the experts at '\(path)', which compute the tokens of all rows of a batch",
                    remedy: "run it in a batch of its own")
            }
            if path == set.model.outputLayer && sharesOutput
                || (module as? any EmbeddingAdapter)?.reachesTiedOutput == true
            {
                return PEFTError(
                    "adapter '\(name)' adapts the output layer, which all rows of a batch share",
                    remedy: "run it in a batch of its own")
            }
            // Other embeddings, such as positions, are looked up once for the whole batch.
            if let table = site as? Embedding, path != set.model.inputEmbedding, table.table == nil {
                return PEFTError(
                    "adapter '\(name)' adapts the embedding '\(path)', which all rows of a batch share",
                    remedy: "run it in a batch of its own")
            }
        }
        return nil
    }

    /// Adapters that act as the projections an adapter trains in full, such as a classification head, on its examples
    /// only.
    private func replacements(_ adapter: Adapter) -> [(site: Linear, module: ReplacedProjection)] {
        guard !adapter.trained.isEmpty else { return [] }
        return Dictionary(grouping: adapter.trained, by: \.owner).compactMap { owner, tensors in
            guard let site = linears[owner] else { return nil }
            func values(_ name: String) -> Tensor? { tensors.first { $0.path == "\(owner).\(name)" }?.values }
            return (site, ReplacedProjection(weight: values("weight"), bias: values("bias")))
        }
    }

    /// An encoder-decoder's decode step writes one KV-cache column for all examples. A prefix precedes the virtual
    /// tokens, so an example with a prefix can't have a gap between it and longer virtual tokens of others.
    private func cacheObstacle(_ rows: [String?]) throws -> PEFTError? {
        guard set.model.architecture == .encoderDecoder else { return nil }
        let lengths = try withTorchErrors {
            try withoutGradients {
                try Set(rows.compactMap { $0 }).map { name -> (name: String, prefix: Int, prompt: Int) in
                    var (prefix, prompt) = (0, 0)
                    for (_, site, module) in try set.named(name).attached {
                        if let site = site as? KeyValueSite, site.role == .decoder, site.kind == .attention {
                            let own = (module as? any KeyValueAdapter)?.keysAndValues().keys.dim(0) ?? 0
                            prefix = max(prefix, own)
                        } else if let site = site as? InputSite, site.role == .decoder {
                            prompt += (module as? any InputAdapter)?.prompt(task: 0).dim(0) ?? 0
                        }
                    }
                    return (name, prefix, prompt)
                }
            }
        }
        let longest = lengths.map(\.prompt).max() ?? 0
        guard let short = lengths.first(where: { $0.prefix > 0 && $0.prompt < longest }),
            let long = lengths.first(where: { $0.prompt == longest })
        else { return nil }
        return PEFTError(
            "the prefix of adapter '\(short.name)' can't share a batch with the \(longest) decoder virtual tokens of '\(long.name)'",
            remedy: "generate with each in a batch of its own")
    }
}

/// A projection with another weight or bias than the model's.
private final class ReplacedProjection: Module, LinearAdapter {
    private let weight: Tensor?
    private let bias: Tensor?

    init(weight: Tensor?, bias: Tensor?) { (self.weight, self.bias) = (weight, bias) }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        (weight.map { DenseWeight($0) } ?? base.weight).project(x, bias: bias ?? base.bias)
    }

    func merged(into weight: Tensor) throws -> Tensor { self.weight ?? weight }
    func merged(intoBias bias: Tensor) throws -> Tensor { self.bias ?? bias }
}

extension Adapter.TrainedTensor {
    /// Path of the module that contains it.
    fileprivate var owner: String { path.split(separator: ".").dropLast().joined(separator: ".") }
}

/// Ensembling of prompts or other adapters for one task by majority vote (Lester et al. 2021, section 6). All members
/// run in one batch.
public struct AdapterEnsemble {
    private let batch: MixedBatch
    private let members: [String]

    /// - Parameters:
    ///   - set: the adapters over one model.
    ///   - members: names of the set's adapters; all if `nil`.
    /// - Throws: ``PEFTError`` for unknown names and adapters that can't share a batch.
    public init(_ set: AdapterSet, members: [String]? = nil) throws {
        batch = MixedBatch(set)
        self.members = members ?? set.names
        guard !self.members.isEmpty else {
            throw PEFTError("the ensemble is empty", remedy: "add at least one adapter")
        }
        for name in self.members {
            if let obstacle = try batch.obstacle(name) { throw obstacle }
        }
    }

    /// The most frequent answer to each prompt, with its number of votes.
    public func generate(_ prompts: [[Int]], parameters: GenerateParameters) throws -> [(tokens: [Int], votes: Int)] {
        let rows = prompts.flatMap { prompt in members.map { _ in prompt } }
        let answers = try batch.generate(
            rows, adapters: prompts.flatMap { _ in members }, parameters: parameters)
        return voted(answers, prompts: prompts.count).map { ($0.answer, $0.votes) }
    }

    /// The most frequent class of each example, for an ensemble over an encoder, with its number of votes.
    public func classify(_ inputs: [[Int]]) throws -> [(label: Int, votes: Int)] {
        let model = batch.set.model
        guard model.head.task == .classification else {
            throw PEFTError(
                "a \(model.family) model for \(model.head.task.rawValue) doesn't classify",
                remedy: model.generates ? "use generate instead" : nil)
        }
        let rows = inputs.flatMap { input in members.map { _ in (input: input, target: [0]) } }
        let answers: [Int] = try batch.run(inputs.flatMap { _ in members }) {
            try withTorchErrors {
                withoutGradients {
                    model.computing { model.logits(model.batch(rows, device: model.device)) }.argmax(axis: -1).array()
                }
            }
        }
        return voted(answers, prompts: inputs.count).map { ($0.answer, $0.votes) }
    }

    private func voted<Answer: Hashable>(_ answers: [Answer], prompts: Int) -> [(answer: Answer, votes: Int)] {
        (0..<prompts).compactMap { Self.majority(Array(answers[($0 * members.count)..<(($0 + 1) * members.count)])) }
    }

    /// The most frequent answer, the first in case of a tie; `nil` if there are none.
    package static func majority<Answer: Hashable>(_ answers: [Answer]) -> (answer: Answer, votes: Int)? {
        let votes = answers.reduce(into: [:]) { $0[$1, default: 0] += 1 }
        guard let most = votes.values.max(), let answer = answers.first(where: { votes[$0] == most }) else {
            return nil
        }
        return (answer, most)
    }
}
