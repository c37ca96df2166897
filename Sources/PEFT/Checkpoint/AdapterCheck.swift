import Foundation
import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// The result of checking an adapter against a model: whether it fits, and what effect it has.
package struct AdapterCheck: Codable, Sendable {
    /// Reasons why the adapter doesn't fit the model; empty if it fits.
    package var problems: [String] = []
    /// Problems of single tensors, grouped by kind.
    package var groups: [Group] = []
    /// Suspicious properties of an adapter that fits.
    package var warnings: [String] = []
    /// Label of the adapter's method.
    package var method: String
    /// Number of stored parameters.
    package var parameters: Int
    /// Number of stored tensors by dtype.
    package var types: [String: Int] = [:]
    /// Effect on the model's logits; `nil` if the adapter doesn't fit.
    package var effect: Effect?
    /// Strength of the adapter at each adapted module.
    package var sites: [Site] = []
    /// Scales of the LoRA branches, with the number of modules that use each.
    package var scales: [Scale] = []

    /// The experts that the adapter changes, for each adapted tensor of experts.
    package var changedExperts: [(path: String, changed: [Int], count: Int)] {
        var result: [(path: String, changed: [Int], count: Int)] = []
        for site in sites {
            guard let expert = site.expert else { continue }
            let path = String(site.path.dropLast(String(expert).count + 1))
            if result.last?.path != path { result.append((path, [], 0)) }
            result[result.count - 1].count += 1
            if site.strength > 0 { result[result.count - 1].changed.append(expert) }
        }
        return result
    }

    /// Problems of one kind.
    package struct Group: Codable, Sendable {
        package var kind: String
        /// The affected tensors, each with what is wrong about it.
        package var tensors: [String]
    }

    /// How the adapter changes the model's outputs on sample batches.
    package struct Effect: Codable, Sendable {
        /// Largest absolute difference of a logit with and without the adapter.
        package var largest: Double
        /// Mean absolute difference of a logit.
        package var mean: Double
        /// Mean Kullback–Leibler divergence KL(base ‖ adapted) of the output distributions, in nats.
        package var divergence: Double
        /// Fraction of positions whose argmax token, or class, changes.
        package var changed: Double
    }

    /// One adapted module.
    package struct Site: Codable, Sendable {
        package var path: String
        package var layer: Int?
        /// ‖ΔW‖ / ‖W‖ (Frobenius) of a projection or embedding; elsewhere the mean logit change that this module
        /// alone causes.
        package var strength: Double
        /// Whether ``strength`` is ‖ΔW‖ / ‖W‖.
        package var isRelativeNorm: Bool
        /// Whether ``strength`` is ‖ΔW‖ itself because W is 0, as for a classification head's initial bias.
        package var isNorm = false
        /// Rank and scale of a LoRA branch.
        package var rank: Int?
        package var scale: Double?
        /// The expert, if ``path`` is that of one of several experts' matrices.
        package var expert: Int?
    }

    /// A scale that LoRA branches use.
    package struct Scale: Codable, Sendable {
        /// Factor that ΔW = B A is multiplied by.
        package var value: Double
        /// Number of modules with this scale.
        package var places: Int
        /// Scale that adapter_config.json specifies for these modules.
        package var asked: Double
    }

    package var fits: Bool { problems.isEmpty }
    /// Whether the adapter changes any logit of the sample batches.
    package var isEffective: Bool { (effect?.largest ?? 0) > 0 }

    /// The check of a folder that can't be read as an adapter.
    package init(unreadable error: PEFTError) {
        (method, parameters, problems) = ("unknown", 0, [error.description])
    }

    /// Checks an adapter folder against a model and leaves the model unchanged.
    ///
    /// - Parameter batches: sample batches on which the effect is measured.
    /// - Throws: ``PEFTError`` if a file can't be read.
    package init(_ folder: AdapterFolder, on model: any LanguageModel, batches: [TrainingBatch]) throws {
        method = folder.choice.label
        parameters = folder.tensorShapes.reduce(0) { $0 + $1.shape.reduce(1, *) }
        warnings = folder.notes
        let stored = try StoredVocabulary(folder, on: model)
        if let problem = stored.problem {
            problems = [problem.description]
            return
        }
        // Plan for the vocabulary matrices that the file contains.
        let vocabulary = stored.matrices(on: model)
        if let note = stored.note(on: model) { warnings.append(note) }
        vocabulary?.put()
        defer { vocabulary?.remove() }
        let outline = ModelOutline(model)
        let plan: [Attachment]
        do {
            plan = try folder.choice.resolved(for: outline).plan(for: outline)
            let found = try folder.match(plan, model: model, vocabulary: stored.keys).problems
            problems = found.map { $0.error(folder.url.lastPathComponent).description }
            for problem in found {
                if let index = groups.firstIndex(where: { $0.kind == problem.kind }) {
                    groups[index].tensors.append(problem.detail)
                } else {
                    groups.append(Group(kind: problem.kind, tensors: [problem.detail]))
                }
            }
            explainShapes(found)
        } catch let error as PEFTError {
            problems = [error.description]
            return
        }
        try inspectValues(folder)
        inspectPatterns(folder, plan)
        inspectTargets(folder, outline)
        guard problems.isEmpty else { return }
        vocabulary?.remove()
        let baseSize = model.vocabularySize
        let adapter = try folder.attach(to: model)
        defer { try? adapter.deactivate() }
        var batches = batches
        let size = model.vocabularySize
        if batches.contains(where: { max($0.input.largestID, $0.decoder?.largestID ?? 0) >= size }) {
            batches = [Self.batch(Array(0..<min(32, size)), for: model)]
            warnings.append(
                "the adapter's vocabulary of \(size) tokens lacks tokens of the sample examples; the effect is measured on its first tokens instead"
            )
        }
        var with = try Self.scores(model, batches)
        func measureEffect(onOwnVocabulary: Bool = false) throws {
            try adapter.deactivate()
            if onOwnVocabulary { vocabulary?.put() }
            defer {
                vocabulary?.remove()
                adapter.activate()
            }
            effect = try Self.effect(Self.scores(model, batches), with)
        }
        try measureEffect()
        if !isEffective, let tokens = try changedTokens(adapter) {
            // Trained tokens only show an effect on themselves, and the sample contains none of them.
            batches = [Self.batch(tokens, for: model)]
            with = try Self.scores(model, batches)
            // The base may lack them.
            try measureEffect(onOwnVocabulary: tokens.contains { $0 >= baseSize })
            if isEffective {
                warnings.append(
                    "the sample examples contain none of the tokens that the adapter changes; the effect is measured on these tokens instead"
                )
            }
        }
        guard let effect, [effect.largest, effect.mean, effect.divergence].allSatisfy(\.isFinite) else {
            effect = nil
            problems.append("the model's logits are NaN or infinite with the adapter")
            return
        }
        if !isEffective { warnings.append("the adapter changes no logit of the sample examples") }
        try measureSites(adapter, with, batches)
        measureScales(adapter, folder)
    }

    /// A batch of one sequence with these tokens.
    private static func batch(_ tokens: [Int], for model: any LanguageModel) -> TrainingBatch {
        model.batch([TrainingRow(input: tokens, target: model.generates ? tokens : [0])], device: model.device)
    }

    private static func scores(_ model: any LanguageModel, _ batches: [TrainingBatch]) throws -> [Tensor] {
        try withTorchErrors {
            withoutGradients { batches.map { batch in model.computing { model.logits(batch) }.to(.float32) } }
        }
    }

    private static func effect(_ without: [Tensor], _ with: [Tensor]) throws -> Effect {
        try withTorchErrors {
            var (largest, sum, count, divergence, changed, positions) = (0.0, 0.0, 0, 0.0, 0.0, 0)
            for (all, own) in zip(without, with) {
                // An adapter may bring another vocabulary size.
                let width = min(all.dim(-1), own.dim(-1))
                let a = all.narrowed(axis: all.rank - 1, 0..<width)
                let b = own.narrowed(axis: own.rank - 1, 0..<width)
                let difference = (a - b).abs()
                largest = max(largest, difference.max().item())
                sum += difference.sum().item()
                count += difference.count
                let (p, q) = (a.logSoftmax(), b.logSoftmax())
                divergence += (p.exp() * (p - q)).sum().item()
                let rows = a.count / max(1, a.dim(-1))
                changed += Double(rows) - a.argmax(axis: -1).equal(to: b.argmax(axis: -1)).to(.float32).sum().item()
                positions += rows
            }
            let rows = Double(max(1, positions))
            return Effect(
                largest: largest, mean: sum / Double(max(1, count)), divergence: max(0, divergence / rows),
                changed: changed / rows)
        }
    }

    /// Explains a common cause of shape mismatches: another rank than in the configuration, or another base model.
    private mutating func explainShapes(_ problems: [AdapterFolder.Problem]) {
        let shapes = problems.compactMap { problem -> (stored: [Int], needed: [Int])? in
            guard case .misshapen(let key, let stored, let needed) = problem, key.hasSuffix(".lora_A.weight"),
                stored.count == 2, needed.count == 2
            else { return nil }
            return (stored, needed)
        }
        guard !shapes.isEmpty else { return }
        func list(_ sizes: [Int]) -> String { Set(sizes).sorted().map(String.init).joined(separator: ", ") }
        let others = shapes.filter { $0.stored[1] != $0.needed[1] }
        warnings.append(
            others.isEmpty
                ? "the LoRA matrices have rank \(list(shapes.map { $0.stored[0] })), but adapter_config.json says \(list(shapes.map { $0.needed[0] }))"
                : "the LoRA matrices take inputs of size \(list(others.map { $0.stored[1] })), but this model's have size \(list(others.map { $0.needed[1] })): the adapter was trained on another model"
        )
    }

    // MARK: Files

    private mutating func inspectValues(_ folder: AdapterFolder) throws {
        var zeros: [String] = []
        for entry in folder.tensors.entries.values { types[entry.dtype.rawValue, default: 0] += 1 }
        if types.count > 1 {
            let list = types.sorted { $0.key < $1.key }.map { "\($0.value) of \($0.key)" }
            warnings.append("the tensors have mixed dtypes: \(list.joined(separator: ", "))")
        }
        for (name, _) in folder.tensorShapes {
            let tensor = try withTorchErrors { try folder.tensor(name).to(.float32) }
            let (finite, largest) = try withTorchErrors {
                (tensor.isFinite().to(.float32).sum().item(), tensor.count > 0 ? tensor.abs().max().item() : 0)
            }
            if Int(finite) != tensor.count {
                problems.append(
                    "the tensor '\(name)' contains \(tensor.count - Int(finite)) NaN or infinite values")
            } else if largest == 0, tensor.count > 0 {
                zeros.append(name)
            }
        }
        if let first = zeros.first {
            warnings.append(
                "\(zeros.count) of \(folder.tensorShapes.count) tensors are all zero, the first is '\(first)'"
                    + (zeros.contains { $0.contains("lora_B") } ? ": a LoRA branch with B = 0 has no effect" : ""))
        }
    }

    /// Warns of `rank_pattern` and `alpha_pattern` entries that match no module, or are shadowed by others.
    private mutating func inspectPatterns(_ folder: AdapterFolder, _ plan: [Attachment]) {
        let paths = plan.filter { [.linear, .embedding, .experts].contains($0.site) }.map(\.path)
        for key in ["rank_pattern", "alpha_pattern"] {
            var values: [String: [(pattern: String, value: Double)]] = [:]
            for (pattern, value) in (folder.configuration[key]?.object ?? [:]).sorted(by: { $0.key < $1.key })
            where value.double != nil {
                let matcher = try? TargetSelection.wholeMatch("(.*\\.)?(\(pattern))", option: key)
                let matched = paths.filter { (try? matcher?.matches($0)) ?? false }
                if matched.isEmpty {
                    warnings.append(
                        "the pattern '\(pattern)' in '\(key)' matches no module of this model and has no effect")
                }
                for path in matched { values[path, default: []].append((pattern, value.double ?? 0)) }
            }
            let doubtful = paths.filter { Set((values[$0] ?? []).map(\.value)).count > 1 }
            if let first = doubtful.first, let used = values[first]?.first {
                let others = (values[first] ?? []).dropFirst().map { "'\($0.pattern)'" }.joined(separator: ", ")
                warnings.append(
                    "\(doubtful.count) modules match several patterns in '\(key)': at \(first), '\(used.pattern)' applies and \(others) has no effect"
                )
            }
        }
    }

    /// Warns of targets that match nothing. Hugging Face ignores them as long as another target matches.
    private mutating func inspectTargets(_ folder: AdapterFolder, _ outline: ModelOutline) {
        let paths = outline.modules
        for key in ["target_modules", "exclude_modules", "feedforward_modules"] {
            let unused = (folder.configuration[key]?.array ?? []).compactMap(\.string).filter { name in
                !paths.contains { TargetSelection.names(name, $0) }
            }
            guard !unused.isEmpty else { continue }
            warnings.append(
                "\(unused.map { "'\($0)'" }.joined(separator: ", ")) in '\(key)' \(unused.count == 1 ? "matches" : "match") no module of this model"
            )
        }
        let layers = Set(outline.linears.compactMap { ModelOutline.layer(of: $0.path) })
        let chosen = (folder.configuration["layers_to_transform"]?.array ?? []).compactMap(\.int)
        let absent = chosen.filter { !layers.contains($0) }
        if !absent.isEmpty {
            warnings.append(
                "'layers_to_transform' lists layers that the model doesn't have: \(absent.map(String.init).joined(separator: ", "))"
            )
        }
    }

    // MARK: Strength

    private mutating func measureSites(_ adapter: Adapter, _ with: [Tensor], _ batches: [TrainingBatch]) throws {
        for (path, site, module) in adapter.attached {
            let strength: (value: Double, isNorm: Bool)
            var isRelative = true
            if let linear = site as? Linear, let update = module as? any LinearAdapter,
                let merged = try? withTorchErrors({
                    try withoutGradients { try update.merged(into: linear.weight.dense(as: .float64)) }
                })
            {
                strength = try Self.relativeChange(linear.weight.dense(as: .float64), merged)
            } else if let experts = site as? ExpertLinear, let update = module as? any ExpertAdapter {
                let changes = try Self.expertChanges(experts, update)
                sites += changes.enumerated().map { expert, change in
                    Site(
                        path: "\(path).\(expert)", layer: ModelOutline.layer(of: path), strength: change.value,
                        isRelativeNorm: !change.isNorm, isNorm: change.isNorm,
                        rank: (module as? any ScaledDelta)?.deltaRank,
                        scale: (module as? any ScaledDelta)?.deltaScale, expert: expert)
                }
                continue
            } else if let table = site as? Embedding, let update = module as? any EmbeddingAdapter,
                let merged = try? withTorchErrors({
                    try withoutGradients { try update.merged(into: table.weight.dense(as: .float64)) }
                })
            {
                strength = try Self.relativeChange(table.weight.dense(as: .float64), merged)
            } else {
                // The effect of this module alone: logits without it.
                isRelative = false
                site.detach(module)
                defer { site.attach(module, route: nil) }
                strength = (try Self.effect(Self.scores(adapter.model, batches), with).mean, false)
            }
            let update = module as? any ScaledDelta
            sites.append(
                Site(
                    path: path, layer: ModelOutline.layer(of: path), strength: strength.value,
                    isRelativeNorm: isRelative && !strength.isNorm, isNorm: strength.isNorm,
                    rank: update?.deltaRank, scale: update?.deltaScale))
        }
        for tensor in adapter.trained {
            guard let base = tensor.base else { continue }
            let strength = try Self.relativeChange(base.to(.float64), tensor.values.detached().to(.float64))
            sites.append(
                Site(
                    path: tensor.path, layer: ModelOutline.layer(of: tensor.path), strength: strength.value,
                    isRelativeNorm: !strength.isNorm, isNorm: strength.isNorm))
        }
        let silent = sites.filter { $0.strength == 0 }
        if !silent.isEmpty, silent.count < sites.count {
            warnings.append(
                "\(silent.count) of \(sites.count) adapted modules are unchanged; the first is \(silent[0].path)")
        }
    }

    /// ``relativeChange(_:_:)`` of each expert's matrix.
    private static func expertChanges(_ site: ExpertLinear, _ adapter: any ExpertAdapter) throws -> [(
        value: Double, isNorm: Bool
    )] {
        let (before, after) = try withTorchErrors {
            try withoutGradients {
                let before = site.weight.dense(as: .float64)
                return (before, try adapter.merged(into: before))
            }
        }
        return try (0..<site.experts).map { expert in
            try relativeChange(
                before.narrowed(axis: 0, expert..<expert + 1), after.narrowed(axis: 0, expert..<expert + 1))
        }
    }

    /// ‖after − before‖ / ‖before‖, or ‖after − before‖ where `before` is 0.
    private static func relativeChange(_ before: Tensor, _ after: Tensor) throws -> (value: Double, isNorm: Bool) {
        try withTorchErrors {
            withoutGradients {
                let norm = before.squared().sum().item().squareRoot()
                let change = (after - before).squared().sum().item().squareRoot()
                return norm > 0 ? (change / norm, false) : (change, true)
            }
        }
    }

    /// The first tokens whose embeddings the adapter changes; `nil` if there are none.
    private func changedTokens(_ adapter: Adapter) throws -> [Int]? {
        let model = adapter.model
        var tables: [(before: Tensor, after: Tensor)] = []
        for (_, site, module) in adapter.attached {
            guard let table = site as? Embedding, table.entries == model.vocabularySize,
                let update = module as? any EmbeddingAdapter
            else { continue }
            let before = table.weight.dense(as: .float32)
            guard let after = try? withTorchErrors({ try withoutGradients { try update.merged(into: before) } })
            else {
                continue
            }
            tables.append((before, after))
        }
        for tensor in adapter.trained where tensor.path == model.inputEmbedding + ".weight" {
            guard let base = tensor.base, base.shape == tensor.values.shape else { continue }
            tables.append((base.to(.float32), tensor.values.detached().to(.float32)))
        }
        let changes = try withTorchErrors {
            withoutGradients {
                tables.map { ($0.after - $0.before).abs().sum(axes: [1]).array(Float.self) }
            }
        }
        let tokens = changes.first.map { first in
            first.indices.filter { token in changes.contains { $0.indices.contains(token) && $0[token] > 0 } }
        }
        let count = min(32, model.positionRoom() ?? 32)
        guard let tokens, !tokens.isEmpty else { return nil }
        return Array(tokens.prefix(count))
    }

    /// Compares the scale of each LoRA branch with the one recomputed from adapter_config.json.
    private mutating func measureScales(_ adapter: Adapter, _ folder: AdapterFolder) {
        guard folder.configuration["peft_type"]?.string?.uppercased() == "LORA" else { return }
        let json = folder.configuration
        func pattern(_ key: String, _ path: String) -> Double? {
            let patterns = (json[key]?.object ?? [:]).compactMapValues(\.double)
            return (try? TargetSelection.value(for: path, in: patterns)) ?? nil
        }
        var counts: [[Double]: Int] = [:]
        for (path, _, module) in adapter.attached {
            guard let update = module as? any ScaledDelta else { continue }
            let rank = pattern("rank_pattern", path) ?? json["r"]?.double ?? 8
            let alpha = pattern("alpha_pattern", path) ?? json["lora_alpha"]?.double ?? 8
            let asked = json["use_rslora"] == true ? alpha / rank.squareRoot() : alpha / rank
            counts[[update.deltaScale, asked], default: 0] += 1
        }
        scales = counts.map { Scale(value: $0.key[0], places: $0.value, asked: $0.key[1]) }
            .sorted { $0.places > $1.places }
        for scale in scales where abs(scale.value - scale.asked) > 1e-9 * abs(scale.asked) {
            problems.append(
                "\(scale.places) modules use the scale \(scale.value), but adapter_config.json specifies \(scale.asked)"
            )
        }
    }
}

/// A LoRA branch that is multiplied by a scale.
protocol ScaledDelta: AdapterModule {
    var deltaRank: Int { get }
    var deltaScale: Double { get }
}

extension LoRAAdapter: ScaledDelta {
    var deltaRank: Int { rank }
    var deltaScale: Double { scale }
}

extension BiasedLoRAAdapter: ScaledDelta {
    var deltaRank: Int { update.rank }
    var deltaScale: Double { update.scale }
}

extension LoRAEmbeddingAdapter: ScaledDelta {
    var deltaRank: Int { a.dim(0) }
    var deltaScale: Double { scale }
}

extension AdapterFolder {
    /// One stored tensor.
    func tensor(_ name: String) throws -> Tensor { try tensors.tensor(name) }
}
