import Foundation
import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Low-rank adaptation (Hu et al. 2021): y = x Wᵀ + s · drop(x) Aᵀ Bᵀ with A `[r, in]`, B `[out, r]` and s = α / r,
/// or α / √r for rank-stabilized LoRA (Kalajdzievski 2023).
public enum LoRA: BuiltInMethod {
    /// Options of ``LoRA``.
    public struct Configuration: BuiltInConfiguration {
        /// Rank r.
        public var rank = 8
        /// α; the branch is scaled by s = α / r.
        public var alpha = 16.0
        /// Dropout probability of the branch's input.
        public var dropout = 0.0
        /// Target modules; Hugging Face PEFT's defaults for the model if empty.
        public var selection = TargetSelection(targets: [])
        /// Ranks and alphas of modules whose path matches a pattern.
        public var rankPattern: [String: Double] = [:]
        /// Values of α of modules whose path matches a pattern.
        public var alphaPattern: [String: Double] = [:]
        /// Names of matrices of experts or of routers that are adapted beside the target modules, such as
        /// `mlp.experts.gate_up_proj` (`target_parameters` of Hugging Face PEFT). Without target modules, they alone are.
        public var parameters: [String] = []
        /// The initialization, rsLoRA, DoRA and LoRA+.
        package var variants = LoRAVariants()
        /// Biases, trained tokens, weight tying and slices.
        public var extras = LoRAExtras()

        /// The default options.
        public init() {}

        /// - Parameters:
        ///   - rank: r, from 1.
        ///   - alpha: α; the branch is scaled by α / r.
        ///   - dropout: dropout probability of the branch's input.
        ///   - targets: names of target modules, or `all-linear`.
        public init(rank: Int, alpha: Double, dropout: Double = 0, targets: [String]) {
            (self.rank, self.alpha, self.dropout) = (rank, alpha, dropout)
            selection = TargetSelection(targets: targets)
        }

        private static let rankFields: [ConfigurationField<Configuration>] =
            [
                .init("rank", key: "r", .integer(1...65536), help: "LoRA rank r") {
                    .integer($0.rank)
                } write: {
                    $0.rank = try integer($1)
                },
                .init(
                    "alpha", key: "lora_alpha", .number(0...1e6),
                    help: "LoRA alpha; the branch is scaled by alpha / rank"
                ) {
                    .wholeOr($0.alpha)
                } write: {
                    $0.alpha = try number($1)
                },
                .init(
                    "dropout", key: "lora_dropout", .number(0...0.99), help: "dropout on the LoRA branch's input"
                ) {
                    .number($0.dropout)
                } write: {
                    $0.dropout = try number($1)
                },
            ]

        private static let patternFields: [ConfigurationField<Configuration>] =
            [
                .init(
                    "rank-pattern", key: "rank_pattern", .numbersByPattern,
                    help: "ranks for matching modules: pattern=rank,…"
                ) {
                    .object($0.rankPattern.mapValues { .wholeOr($0) })
                } write: {
                    $0.rankPattern = try patterns($1)
                },
                .init(
                    "alpha-pattern", key: "alpha_pattern", .numbersByPattern,
                    help: "alphas for matching modules: pattern=alpha,…"
                ) {
                    .object($0.alphaPattern.mapValues { .wholeOr($0) })
                } write: {
                    $0.alphaPattern = try patterns($1)
                },
                .init(
                    "target-parameters", key: "target_parameters", .names,
                    help: "matrices of experts to adapt, such as experts.gate_up_proj,experts.down_proj"
                ) {
                    $0.parameters.isEmpty ? .null : .array($0.parameters.sorted().map { .string($0) })
                } write: {
                    $0.parameters = try names($1)
                },
            ]

        package func check() throws {
            guard (1...65536).contains(rank) else {
                throw PEFTError("the rank is \(rank)", remedy: "use a value from 1 to 65536")
            }
            guard alpha > 0, alpha.isFinite else {
                throw PEFTError("alpha is \(alpha)", remedy: "use a value above 0")
            }
            guard dropout >= 0, dropout < 1 else {
                throw PEFTError("the dropout is \(dropout)", remedy: "use a value of at least 0 and below 1")
            }
            for variant in variants.used { try variant.validate(rank: rank) }
            if extras.slices != nil && !variants.isPlain
                || extras.hasBias && !variants.used.allSatisfy(\.supportsBias)
            {
                throw PEFTError(
                    "--slices and --lora-bias can't be combined with a variant or initialization that changes the branch",
                    remedy: "remove --slices and --lora-bias")
            }
            for variant in variants.used { try variant.validate(beside: variants) }
            if let bad = rankPattern.first(where: {
                $0.value < 1 || $0.value != $0.value.rounded() || $0.value > 65536
            }) {
                throw PEFTError(
                    "the rank for '\(bad.key)' is \(bad.value)", remedy: "use an integer of at least 1")
            }
            if let bad = alphaPattern.first(where: { !($0.value > 0 && $0.value.isFinite) }) {
                throw PEFTError("the alpha for '\(bad.key)' is \(bad.value)", remedy: "use a value above 0")
            }
            try selection.validate()
            try extras.validate()
            // In Hugging Face PEFT a trained module is copied, and here a copy of a layer shares it.
            guard extras.replication == nil || selection.modulesToSave.names.isEmpty else {
                throw PEFTError(
                    "layer_replication can't be combined with modules to save", remedy: "remove --modules-to-save")
            }
        }

        package enum Declaration: ConfigurationDeclaration {
            /// Hugging Face's defaults for omitted fields: r 8, alpha 8; targets may be listed for several model
            /// families.
            package static var fileDefaults: Configuration {
                var configuration = Configuration()
                configuration.alpha = 8
                configuration.selection.allowsUnusedTargets = true
                return configuration
            }

            package static let fields: [ConfigurationField<Configuration>] =
                rankFields + scalingFields(\.variants) + patternFields + targetFields(\.selection)
                + layerFields(\.selection) + variantFields(\.variants) + extraFields(\.extras)
                + [biasField(\.extras.bias, only: "lora_only")]

            package static let neutral: [String: [JSON]] = [
                "layer_replication": [], "use_qalora": [false],
                // The storage layout of the base's weights (GPT-2's `[in, out]`), which the model handles itself.
                "fan_in_fan_out": [false, true], "enable_lora": [], "arrow_config": [],
            ]
        }
    }

    /// The LoRA branch of a module.
    static func branch(_ configuration: Configuration, at path: String) throws -> LoRABranch {
        let pattern = try TargetSelection.value(for: path, in: configuration.rankPattern).map { Int($0) }
        let alpha = try TargetSelection.value(for: path, in: configuration.alphaPattern) ?? configuration.alpha
        let (rank, variants) = (pattern ?? configuration.rank, configuration.variants)
        return LoRABranch(
            path: path, rank: rank, scale: alpha / variants.scaleDivisor(rank: rank), dropout: configuration.dropout,
            rateRatio: variants.rateRatio, initialization: variants.initialization, trainsB: variants.trainsB)
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = LoRA.Configuration
        package static let name = "lora"
        package static let peftType: String? = "LORA"
        package static let summary = "low-rank adaptation of chosen projections (Hu et al. 2021)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            let name = configuration.variants.used.reduce("LoRA") { $1.label($0) }
            let targets =
                [configuration.selection.targets.isEmpty ? nil : configuration.selection.label]
                .compactMap { $0 } + configuration.parameters
            let label = targets.isEmpty ? configuration.selection.label : targets.joined(separator: ", ")
            return "\(name) r \(configuration.rank) (\(label))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration.withStackedExperts(for: model)
            // Parameters may be the only targets.
            if configuration.parameters.isEmpty || !configuration.selection.targets.isEmpty {
                configuration.selection = configuration.selection.resolved(for: model)
            }
            if let slices = configuration.extras.slices, !slices.isTotal {
                // A file stores the total rank of all slices, for readers that don't support slices.
                configuration.rank *= slices.count
                configuration.alpha *= configuration.variants.scaleDivisor(rank: slices.count)
                configuration.extras.slices?.isTotal = true
            }
            return configuration
        }

        package static func trainingHook(_ configuration: Configuration, for adapter: Adapter) -> (any TrainingHook)?
        {
            configuration.variants.used.lazy.compactMap { $0.trainingHook(for: adapter) }.first
        }

        package static func fileConfiguration(_ configuration: Configuration, of adapter: Adapter) -> Configuration {
            configuration.variants.used.reduce(configuration) { $1.fileConfiguration($0, of: adapter) }
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let model = try configuration.extras.replication.map { try model.stacking($0.order) } ?? model
            let configuration = resolved(configuration, for: model)
            // Before the targets are matched, which would call one of the two unknown.
            try configuration.requireWholeExperts(in: model)
            let tied = configuration.tiedSelection(in: model)
            let selection = tied ?? configuration.selection
            let (linears, tables) =
                try selection.targets.isEmpty ? ([], []) : selection.sitesAndEmbeddings(in: model)
            let parameters = try configuration.parameterAttachments(for: model, adapted: linears.map(\.path))
            let variants = configuration.variants
            for variant in variants.used { try variant.validate(linears, of: model) }
            let updates = try linears.map { site in
                let branch = try branch(configuration, at: site.path)
                if let slices = configuration.extras.slices {
                    return try slices.attachment(
                        at: site, in: model, rank: branch.rank, scale: branch.scale, dropout: branch.dropout)
                }
                let hasBias = configuration.extras.hasBias
                let shapes = try variants.shapes(rank: branch.rank, at: site)
                return .linear(
                    site.path,
                    [
                        .init("lora_A.weight", shapes.a, isTrained: variants.trainsA),
                        .init("lora_B.weight", shapes.b, isTrained: variants.trainsB),
                    ] + variants.addedTensors(rank: branch.rank, inputs: site.inputs, outputs: site.outputs)
                        + (hasBias ? [TensorSpec("lora_B.bias", [site.outputs])] : [])
                ) { linear, context in
                    let adapter = try variants.adapter(over: linear, branch, context)
                    guard hasBias, let update = adapter as? LoRAAdapter else { return adapter }
                    return BiasedLoRAAdapter(update, linear, scale: branch.scale, context: context)
                }
            }
            let embedded = try tables.map { table in
                let tiedOutput = tied != nil && table.path == model.inputEmbedding ? model.outputLayer : nil
                return try LoRAEmbeddingAdapter.attachment(
                    at: table, in: model, branch(configuration, at: table.path), variants, tiedOutput: tiedOutput)
            }
            let extras = try configuration.extras.attachments(
                for: model, linears: linears, embeddings: tables,
                allowsNoBiases: configuration.selection.allowsUnusedTargets)
            return updates + parameters + embedded + extras
        }
    }
}

extension LoRA.Configuration {
    /// The targets with one LoRA branch for an embedding and its tied output layer, if one of them is a target and
    /// both stay tied (`ensure_weight_tying`); `nil` otherwise.
    func tiedSelection(in model: ModelOutline) -> TargetSelection? {
        let (table, output) = (model.inputEmbedding, model.outputLayer)
        guard model.isTied, MethodChoice.tying(json).targets else { return nil }
        var tied = selection
        if selection.isPattern, let pattern = selection.targets.first {
            tied.targets = ["(?:\(pattern)|\(NSRegularExpression.escapedPattern(for: table)))"]
            return tied
        }
        tied.targets = selection.targets.filter { !TargetSelection.names($0, output) }
        if !tied.targets.contains(where: { TargetSelection.names($0, table) }) { tied.targets.append(table) }
        return tied
    }
}
