import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// How much each adapted module changes.
extension AdapterCheck {
    mutating func measureSites(_ adapter: Adapter, _ with: [Tensor], _ batches: [TrainingBatch]) throws {
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
    func changedTokens(_ adapter: Adapter) throws -> [Int]? {
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
    mutating func measureScales(_ adapter: Adapter, _ folder: AdapterFolder) {
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
