import Foundation
import LanguageModels
import Support
import Torch
import TorchNN

/// Low-rank adaptation (Hu et al. 2021): y = x Wᵀ + s · drop(x) Aᵀ Bᵀ with A `[r, in]`, B `[out, r]` and s = α / r,
/// or α / √r for rank-stabilized LoRA (Kalajdzievski 2023).
public enum LoRA: PEFTMethod {
    public static let name = "lora"
    public static let peftType: String? = "LORA"
    public static let summary = "low-rank adaptation of chosen projections (Hu et al. 2021)"
    public static let defaultLearningRate = 1e-3

    public struct Configuration: MethodConfiguration {
        /// Rank r.
        public var rank = 8
        /// α; the branch is scaled by s = α / r.
        public var alpha = 16.0
        /// Dropout probability of the branch's input.
        public var dropout = 0.0
        /// Target modules; Hugging Face PEFT's defaults for the model if empty.
        public var selection = TargetSelection(targets: [])
        /// Whether s = α / √r instead (rsLoRA; Kalajdzievski 2023).
        public var isRankStabilized = false
        /// Ranks and alphas of modules whose path matches a pattern.
        public var rankPattern: [String: Double] = [:]
        public var alphaPattern: [String: Double] = [:]
        /// Initialization, DoRA and LoRA+.
        public var variant = LoRAVariant()
        /// Biases, trained tokens, weight tying and slices.
        public var extras = LoRAExtras()

        public init() {}

        /// Hugging Face's defaults for omitted fields: r 8, alpha 8; targets may be listed for several model
        /// families.
        public static var fileDefaults: Configuration {
            var configuration = Configuration()
            configuration.alpha = 8
            configuration.selection.allowsUnusedTargets = true
            return configuration
        }

        public init(rank: Int, alpha: Double, dropout: Double = 0, targets: [String]) {
            (self.rank, self.alpha, self.dropout) = (rank, alpha, dropout)
            selection = TargetSelection(targets: targets)
        }

        public static let fields: [ConfigurationField<Configuration>] =
            [
                .init("rank", key: "r", .integer(1...65536), help: "LoRA rank r (8)") {
                    .integer($0.rank)
                } write: {
                    $0.rank = try integer($1)
                },
                .init(
                    "alpha", key: "lora_alpha", .number(0...1e6),
                    help: "LoRA alpha; the branch is scaled by alpha / rank (16)"
                ) {
                    .wholeOr($0.alpha)
                } write: {
                    $0.alpha = try number($1)
                },
                .init(
                    "dropout", key: "lora_dropout", .number(0...0.99), help: "dropout on the LoRA branch's input (0)"
                ) {
                    .number($0.dropout)
                } write: {
                    $0.dropout = try number($1)
                },
                .init("rslora", key: "use_rslora", .flag, help: "scale by alpha / √rank instead") {
                    .bool($0.isRankStabilized)
                } write: {
                    $0.isRankStabilized = try flag($1)
                },
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
            ] + targetFields(\.selection) + layerFields(\.selection) + variantFields(\.variant)
            + extraFields(\.extras) + [biasField(\.extras.bias, only: "lora_only")]

        public static let neutral: [String: [JSON]] = [
            "layer_replication": [], "use_qalora": [false], "target_parameters": [[]],
            // The storage layout of the base's weights (GPT-2's `[in, out]`), which the model handles itself.
            "fan_in_fan_out": [false, true], "enable_lora": [], "alora_invocation_tokens": [], "arrow_config": [],
            "megatron_config": [],
            "monteclora_config": [], "velora_config": [], "lora_ga_config": [], "use_bdlora": [], "kasa_config": [],
        ]

        public func validate() throws {
            guard (1...65536).contains(rank) else {
                throw PEFTError("the rank is \(rank)", remedy: "use a value from 1 to 65536")
            }
            guard alpha > 0, alpha.isFinite else {
                throw PEFTError("alpha is \(alpha)", remedy: "use a value above 0")
            }
            guard dropout >= 0, dropout < 1 else {
                throw PEFTError("the dropout is \(dropout)", remedy: "use a value of at least 0 and below 1")
            }
            if case .orthogonal = variant.initialization, !rank.isMultiple(of: 2) {
                throw PEFTError(
                    "the rank \(rank) is odd, which orthogonal initialization doesn't support",
                    remedy: "use an even rank")
            }
            if variant.isDoRA || variant.initialization.replacesWeight, extras.slices != nil || extras.hasBias {
                throw PEFTError(
                    "--slices and --lora-bias can't be combined with DoRA or an initialization that changes the weight",
                    remedy: "remove --slices and --lora-bias")
            }
            if variant.isDoRA, variant.initialization.replacesWeight {
                throw PEFTError(
                    "DoRA can't be combined with an initialization that changes the weight",
                    remedy: "remove --dora or --init")
            }
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
        }
    }

    public static func label(_ configuration: Configuration) -> String {
        let variant = configuration.variant
        var name = configuration.isRankStabilized ? "rsLoRA" : "LoRA"
        if variant.isDoRA { name = configuration.isRankStabilized ? "rsDoRA" : "DoRA" }
        switch variant.initialization {
        case .pissa: name = name.replacing("LoRA", with: "PiSSA")
        case .olora: name = name.replacing("LoRA", with: "OLoRA")
        case .eva: name = name.replacing("LoRA", with: "EVA")
        case .loftq: name = name.replacing("LoRA", with: "LoftQ")
        default: break
        }
        if variant.rateRatio != 1 { name += "+" }
        return "\(name) r \(configuration.rank) (\(configuration.selection.label))"
    }

    public static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
        var configuration = configuration
        configuration.selection = configuration.selection.resolved(for: model)
        if let slices = configuration.extras.slices, !slices.isTotal {
            // A file stores the total rank of all slices, for readers that don't support slices.
            configuration.rank *= slices.count
            configuration.alpha *= slices.factor(isRankStabilized: configuration.isRankStabilized)
            configuration.extras.slices?.isTotal = true
        }
        return configuration
    }

    public static func trainingHook(_ configuration: Configuration, for adapter: Adapter) -> (any TrainingHook)? {
        guard configuration.variant.initialization == .eva, !adapter.isFromFile else { return nil }
        return EVAInitialization(adapter, rho: configuration.variant.evaRho)
    }

    /// The file's configuration where training changed it: a residual as plain LoRA of twice the rank, and EVA's
    /// ranks.
    public static func fileConfiguration(_ configuration: Configuration, of adapter: Adapter) -> Configuration {
        var configuration = configuration
        switch configuration.variant.initialization {
        case .pissa, .olora:
            configuration.variant.initialization = .standard
            let factor = configuration.isRankStabilized ? 2.0.squareRoot() : 2
            configuration.rank *= 2
            configuration.alpha *= factor
            configuration.rankPattern = configuration.rankPattern.mapValues { $0 * 2 }
            configuration.alphaPattern = configuration.alphaPattern.mapValues { $0 * factor }
        case .eva:
            for entry in adapter.attached {
                guard let update = entry.adapter as? LoRAAdapter, update.rank != update.plannedRank else { continue }
                let path = NSRegularExpression.escapedPattern(for: entry.path)
                configuration.rankPattern[path] = Double(update.rank)
                // Keep the scale unchanged when the rank changes.
                configuration.alphaPattern[path] =
                    configuration.isRankStabilized
                    ? update.scale * Double(update.rank).squareRoot() : update.scale * Double(update.rank)
            }
        default: break
        }
        return configuration
    }

    public static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
        let configuration = resolved(configuration, for: model)
        let tied = configuration.tiedSelection(in: model)
        let (linears, tables) = try (tied ?? configuration.selection).sitesAndEmbeddings(in: model)
        let updates = try linears.map { site in
            let (rank, scale) = try rankAndScale(configuration, at: site.path)
            if let slices = configuration.extras.slices {
                return try slices.attachment(
                    at: site, in: model, rank: rank, scale: scale, dropout: configuration.dropout)
            }
            let bias = configuration.extras.hasBias ? [TensorSpec("lora_B.bias", [site.outputs])] : []
            let magnitude =
                configuration.variant.isDoRA ? [TensorSpec("lora_magnitude_vector", [site.outputs])] : []
            return .linear(
                site.path,
                [.init("lora_A.weight", [rank, site.inputs]), .init("lora_B.weight", [site.outputs, rank])]
                    + magnitude + bias
            ) { linear, context in
                let update = try LoRAAdapter.make(configuration, linear, rank: rank, scale: scale, context: context)
                return bias.isEmpty ? update : BiasedLoRAAdapter(update, linear, scale: scale, context: context)
            }
        }
        let embedded = try tables.map { table in
            let (rank, scale) = try rankAndScale(configuration, at: table.path)
            let tiedOutput = tied != nil && table.path == model.inputEmbedding ? model.outputLayer : nil
            return try LoRAEmbeddingAdapter.attachment(
                at: table, in: model, rank: rank, scale: scale, isDoRA: configuration.variant.isDoRA,
                tiedOutput: tiedOutput)
        }
        let extras = try configuration.extras.attachments(
            for: model, linears: linears, embeddings: tables,
            allowsNoBiases: configuration.selection.allowsUnusedTargets)
        return updates + embedded + extras
    }

    /// Rank and scale of the LoRA branch of a projection.
    static func rankAndScale(_ configuration: Configuration, at path: String) throws -> (Int, Double) {
        let rank = try TargetSelection.value(for: path, in: configuration.rankPattern).map { Int($0) }
        let alpha = try TargetSelection.value(for: path, in: configuration.alphaPattern)
        let (r, a) = (rank ?? configuration.rank, alpha ?? configuration.alpha)
        return (r, configuration.isRankStabilized ? a / Double(r).squareRoot() : a / Double(r))
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

/// The LoRA branch of one projection: x `[..., in]` -> `[..., out]`.
class LoRAAdapter: Module, LinearAdapter, AdapterModule {
    /// A `[r, in]`; by default uniform in ±1/√in (Kaiming with a = √5, as in Hugging Face PEFT).
    @ParameterInfo(key: "lora_A.weight") var a: Tensor = .zeros([0])
    /// B `[out, r]`; by default zero, so that training starts at the base model.
    @ParameterInfo(key: "lora_B.weight") var b: Tensor = .zeros([0])
    let scale: Double
    let dropoutRate: Double
    /// Learning-rate factor of B (LoRA+).
    var rateRatio = 1.0
    /// The planned rank, which a data-dependent initialization may change.
    let plannedRank: Int
    /// Collects the inputs before training, for data-dependent initializations.
    var observer: InputCovariance?
    var rank: Int { a.dim(0) }

    /// Creates the LoRA variant that the configuration selects.
    static func make(
        _ configuration: LoRA.Configuration, _ linear: Linear, rank: Int, scale: Double, context: AttachmentContext
    ) throws -> LoRAAdapter {
        let variant = configuration.variant
        let adapter: LoRAAdapter
        if variant.initialization.replacesWeight, context.device != .meta {
            adapter = try ResidualLoRAAdapter(
                linear, rank: rank, scale: scale, dropout: configuration.dropout, variant: variant, context: context)
        } else if variant.isDoRA {
            adapter = DoRAAdapter(
                linear, rank: rank, scale: scale, dropout: configuration.dropout,
                initialization: variant.initialization, context: context)
        } else {
            adapter = LoRAAdapter(
                linear, rank: rank, scale: scale, dropout: configuration.dropout,
                initialization: variant.initialization, context: context)
        }
        adapter.rateRatio = variant.rateRatio
        return adapter
    }

    init(
        _ linear: Linear, rank: Int, scale: Double, dropout: Double, initialization: LoRAVariant.Initialization,
        context: AttachmentContext
    ) {
        (self.scale, dropoutRate, plannedRank) = (scale, dropout, rank)
        super.init()
        let (dtype, device) = (context.dtype, context.device)
        a = .empty([rank, linear.inputs], dtype: dtype, device: device)
        b = .zeros([linear.outputs, rank], dtype: dtype, device: device)
        guard device != .meta else { return }
        let bound = 1 / Double(linear.inputs).squareRoot()
        switch initialization {
        case .gaussian: a.fillNormal(deviation: 1 / Double(rank), from: &context.random)
        case .orthogonal:
            // Rows of A and columns of B are the two halves of one orthonormal basis.
            let square = Tensor.empty([rank, rank], dtype: dtype, device: device)
            square.fillNormal(from: &context.random)
            let basis = square.to(.float64).qr().q.to(dtype)
            let odd = basis.selecting(Tensor(Array(stride(from: 0, to: rank, by: 2)), device: device))
            let even = basis.selecting(Tensor(Array(stride(from: 1, to: rank, by: 2)), device: device))
            let left = Tensor.empty([linear.inputs, odd.dim(0)], dtype: dtype, device: device)
            let right = Tensor.empty([linear.outputs, even.dim(0)], dtype: dtype, device: device)
            left.fillNormal(deviation: 0.1, from: &context.random)
            right.fillNormal(deviation: 0.1, from: &context.random)
            a.copy(from: left.matmul(odd).T)
            b.copy(from: right.matmul(even))
        case .random:
            a.fillUniform(-bound, bound, from: &context.random)
            let limit = 1 / Double(rank).squareRoot()
            b.fillUniform(-limit, limit, from: &context.random)
        default: a.fillUniform(-bound, bound, from: &context.random)
        }
    }

    var adapterParameters: [AdapterParameter] {
        parameters().map { path, parameter in
            // A magnitude has one axis and gets B's learning rate, as in LoRA+'s reference implementation.
            let isA = path == "lora_A.weight"
            return AdapterParameter(path, parameter, rateFactor: isA ? 1 : rateRatio)
        }
    }

    func storedTensors() -> [String: Tensor] {
        adapterParameters.reduce(into: [:]) { if $1.isStored { $0[$1.key] = $1.parameter.tensor } }
    }

    func load(_ tensors: [String: Tensor]) throws {
        for parameter in adapterParameters {
            if let value = tensors[parameter.key] { parameter.parameter.tensor.copy(from: value) }
        }
    }

    var replacementWeight: (any LinearWeight)? { nil }
    var lowRankFactors: LowRankFactors? {
        observer == nil ? LowRankFactors(a: a, b: b, scale: scale, dropout: dropoutRate) : nil
    }

    /// Sets the directions A `[r, in]`, with B zero.
    func begin(with directions: Tensor) {
        let requiresGrad = a.requiresGrad
        a = directions.detached().to(a.dtype).contiguous()
        b = .zeros([b.dim(0), directions.dim(0)], dtype: b.dtype, device: b.device)
        (a.requiresGrad, b.requiresGrad) = (requiresGrad, requiresGrad)
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        observer?.add(x)
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        return Functions.loraBranch(
            base(x), x: x, a: a, b: b, scale: scale, dropout: probability, seed: seed)
    }

    func merged(into weight: Tensor) throws -> Tensor {
        // Computed in fp64 and rounded once.
        let update = b.detached().to(.float64).matmul(a.detached().to(.float64)) * scale
        return (weight.to(.float64) + update).to(weight.dtype)
    }
}
