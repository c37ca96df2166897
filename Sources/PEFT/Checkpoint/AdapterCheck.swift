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

    /// What is said of an adapter that changes no logit.
    static let noEffect = "the adapter changes no logit of the sample examples"
    /// Why the adapter is of no use: it doesn't fit, or changes nothing. `nil` if it changes a logit, or a value that the sample
    /// batches don't use, such as an expert's.
    package var refusal: String? {
        // Rounding in fp64 is no change.
        problems.first ?? (isEffective || sites.contains { $0.strength > 1e-12 } ? nil : Self.noEffect)
    }

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
        if !isEffective { warnings.append(Self.noEffect) }
        try measureSites(adapter, with, batches)
        measureScales(adapter, folder)
    }

    /// A batch of one sequence with these tokens.
    private static func batch(_ tokens: [Int], for model: any LanguageModel) -> TrainingBatch {
        model.batch([TrainingRow(input: tokens, target: model.generates ? tokens : [0])], device: model.device)
    }

    static func scores(_ model: any LanguageModel, _ batches: [TrainingBatch]) throws -> [Tensor] {
        try withTorchErrors {
            withoutGradients { batches.map { batch in model.computing { model.logits(batch) }.to(.float32) } }
        }
    }

    static func effect(_ without: [Tensor], _ with: [Tensor]) throws -> Effect {
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
}
