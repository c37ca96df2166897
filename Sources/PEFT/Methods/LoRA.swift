import LanguageModels
import Support
import Torch
import TorchNN

/// Low-rank adaptation (Hu et al. 2021): y = x Wᵀ + s · drop(x) Aᵀ Bᵀ with A [r, in], B [out, r] and s = α / r,
/// or α / √r for rank-stabilised LoRA (Kalajdzievski 2023).
public enum LoRA: PEFTMethod {
    public static let name = "lora"
    public static let peftType: String? = "LORA"
    public static let summary = "low-rank updates beside chosen projections (Hu et al. 2021)"
    public static let defaultLearningRate = 1e-3

    public struct Configuration: MethodConfiguration {
        public var rank = 8
        public var alpha = 16.0
        public var dropout = 0.0
        public var selection = TargetSelection(targets: [])
        public var isRankStabilised = false
        /// Ranks and alphas for paths that match a pattern.
        public var rankPattern: [String: Double] = [:]
        public var alphaPattern: [String: Double] = [:]
        public var extras = LoRAExtras()

        public init() {}

        /// A file that says nothing means Hugging Face's r 8, alpha 8; and targets may be listed for many families.
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
                .init("rank", key: "r", .integer(1...65536), help: "rank r of the update (8)") {
                    .integer($0.rank)
                } write: {
                    $0.rank = try integer($1)
                },
                .init("alpha", key: "lora_alpha", .number(0...1e6), help: "the update is scaled by alpha / rank (16)")
                {
                    .wholeOr($0.alpha)
                } write: {
                    $0.alpha = try number($1)
                },
                .init("dropout", key: "lora_dropout", .number(0...0.99), help: "dropout on the update's input (0)") {
                    .number($0.dropout)
                } write: {
                    $0.dropout = try number($1)
                },
                .init("rslora", key: "use_rslora", .flag, help: "scale by alpha / √rank instead") {
                    .bool($0.isRankStabilised)
                } write: {
                    $0.isRankStabilised = try flag($1)
                },
                .init("rank-pattern", key: "rank_pattern", .numbersByPattern, help: "other ranks: pattern=rank,…") {
                    .object($0.rankPattern.mapValues { .wholeOr($0) })
                } write: {
                    $0.rankPattern = try patterns($1)
                },
                .init("alpha-pattern", key: "alpha_pattern", .numbersByPattern, help: "other alphas: pattern=alpha,…")
                {
                    .object($0.alphaPattern.mapValues { .wholeOr($0) })
                } write: {
                    $0.alphaPattern = try patterns($1)
                },
            ] + targetFields(\.selection) + layerFields(\.selection) + extraFields(\.extras)
            + [biasField(\.extras.bias, only: "lora_only")]

        public static let neutral: [String: [JSON]] = [
            "use_dora": [false], "layer_replication": [], "use_qalora": [false], "target_parameters": [[]],
            // How the base's file lays out its weights (GPT-2's [in, out]), which is this model's own business.
            "fan_in_fan_out": [false, true], "enable_lora": [], "alora_invocation_tokens": [], "arrow_config": [],
            "megatron_config": [],
            "monteclora_config": [], "velora_config": [], "lora_ga_config": [], "use_bdlora": [], "kasa_config": [],
            // The others (PiSSA, OLoRA, CorDA, LoftQ …) change the base's weights, which the file doesn't hold.
            "init_lora_weights": [true, false, "gaussian", "eva", "orthogonal"],
        ]

        public func validate() throws {
            guard (1...65536).contains(rank) else {
                throw PEFTError("the rank is \(rank)", remedy: "it has to be in 1 … 65536")
            }
            guard alpha > 0, alpha.isFinite else {
                throw PEFTError("alpha is \(alpha)", remedy: "it has to be above 0")
            }
            guard dropout >= 0, dropout < 1 else {
                throw PEFTError("the dropout is \(dropout)", remedy: "it has to be in 0 ..< 1")
            }
            if let bad = rankPattern.first(where: {
                $0.value < 1 || $0.value != $0.value.rounded() || $0.value > 65536
            }) {
                throw PEFTError(
                    "the rank for '\(bad.key)' is \(bad.value)", remedy: "it has to be an integer of at least 1")
            }
            if let bad = alphaPattern.first(where: { !($0.value > 0 && $0.value.isFinite) }) {
                throw PEFTError("the alpha for '\(bad.key)' is \(bad.value)", remedy: "it has to be above 0")
            }
            try selection.validate()
            try extras.validate()
        }
    }

    public static func label(_ configuration: Configuration) -> String {
        "\(configuration.isRankStabilised ? "rsLoRA" : "LoRA") r \(configuration.rank) (\(configuration.selection.label))"
    }

    public static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
        var configuration = configuration
        configuration.selection = configuration.selection.resolved(for: model)
        if let slices = configuration.extras.slices, !slices.isTotal {
            // A file says the rank of all slices together, as a reader that doesn't know of slices needs it.
            configuration.rank *= slices.count
            configuration.alpha *= slices.factor(isRankStabilised: configuration.isRankStabilised)
            configuration.extras.slices?.isTotal = true
        }
        return configuration
    }

    public static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
        let configuration = resolved(configuration, for: model)
        let (linears, tables) = try configuration.selection.sitesAndEmbeddings(in: model)
        let updates = try linears.map { site in
            let (rank, scale) = try rankAndScale(configuration, at: site.path)
            if let slices = configuration.extras.slices {
                return try slices.attachment(
                    at: site, in: model, rank: rank, scale: scale, dropout: configuration.dropout)
            }
            let bias = configuration.extras.hasBias ? [TensorSpec("lora_B.bias", [site.outputs])] : []
            return .linear(
                site.path,
                [.init("lora_A.weight", [rank, site.inputs]), .init("lora_B.weight", [site.outputs, rank])] + bias
            ) { linear, context in
                let update = LoRAAdapter(
                    linear, rank: rank, scale: scale, dropout: configuration.dropout, context: context)
                return bias.isEmpty ? update : BiasedLoRAAdapter(update, linear, scale: scale, context: context)
            }
        }
        let embedded = try tables.map { table in
            let (rank, scale) = try rankAndScale(configuration, at: table.path)
            return try LoRAEmbeddingAdapter.attachment(at: table, in: model, rank: rank, scale: scale)
        }
        let extras = try configuration.extras.attachments(for: model, linears: linears, embeddings: tables)
        return updates + embedded + extras
    }

    private static func rankAndScale(_ configuration: Configuration, at path: String) throws -> (Int, Double) {
        let rank = try TargetSelection.value(for: path, in: configuration.rankPattern).map { Int($0) }
        let alpha = try TargetSelection.value(for: path, in: configuration.alphaPattern)
        let (r, a) = (rank ?? configuration.rank, alpha ?? configuration.alpha)
        return (r, configuration.isRankStabilised ? a / Double(r).squareRoot() : a / Double(r))
    }
}

/// The update of one projection.
final class LoRAAdapter: Module, LinearAdapter, AdapterModule {
    /// [r, in], uniform in ±1/√in (Kaiming with a = √5, as Hugging Face begins).
    @ParameterInfo var a: Tensor
    /// [out, r], zero, so that training starts at the base model.
    @ParameterInfo var b: Tensor
    let scale: Double
    let dropoutRate: Double

    init(_ linear: Linear, rank: Int, scale: Double, dropout: Double, context: AttachmentContext) {
        let (dtype, device) = (context.dtype, context.device)
        let a = Tensor.empty([rank, linear.inputs], dtype: dtype, device: device)
        let bound = 1 / Double(linear.inputs).squareRoot()
        if device != .meta { a.fillUniform(-bound, bound, from: &context.random) }
        _a = ParameterInfo(wrappedValue: a, key: "lora_A.weight")
        _b = ParameterInfo(
            wrappedValue: .zeros([linear.outputs, rank], dtype: dtype, device: device), key: "lora_B.weight")
        (self.scale, dropoutRate) = (scale, dropout)
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        return Functions.lowRankUpdate(
            base(x), x: x, a: a, b: b, scale: scale, dropout: probability, seed: seed)
    }

    func merged(into weight: Tensor) throws -> Tensor {
        // The product in double precision: it is made once, and then rounded once.
        let update = b.detached().to(.float64).matmul(a.detached().to(.float64)) * scale
        return (weight.to(.float64) + update).to(weight.dtype)
    }
}
