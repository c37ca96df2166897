import Foundation
import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// QA-LoRA (Xu et al. 2023): y = x Wᵀ + s · c · pool(x) Aᵀ Bᵀ, where pool sums each group of g inputs, with A `[r, in
/// / g]` and B `[out, r]`.
///
/// All inputs of a group share the delta, so it merges into the zero points of a weight that is quantized in groups
/// (eq. 5): W = scale · (q − z) with z − s · c · (B A) / scale in place of z. Integers and scales are unchanged, and
/// the merged model is as small as before.
public enum QALoRA: BuiltInMethod {
    /// The factor c of a group's sum.
    public enum Pooling: String, Sendable, CaseIterable {
        /// The mean times the number of groups, as in Hugging Face PEFT.
        case scaledMean = "scaled-mean"
        /// The sum, as in the paper.
        case sum
        case mean

        func factor(inputs: Int, groupSize: Int) -> Double {
            switch self {
            case .scaledMean: Double(inputs / groupSize) / Double(groupSize)
            case .sum: 1
            case .mean: 1 / Double(groupSize)
            }
        }
    }

    /// Options of ``QALoRA``.
    public struct Configuration: BuiltInConfiguration {
        /// Rank r.
        public var rank = 8
        /// α; the branch is scaled by s = α / r.
        public var alpha = 16.0
        /// Dropout probability of the branch's input.
        public var dropout = 0.0
        /// Inputs per pooled group; `nil` is the base's quantization group size, or 32 if it isn't quantized in
        /// groups.
        public var groupSize: Int?
        /// How the inputs of a group are pooled.
        public var pooling = Pooling.scaledMean
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])
        /// Ranks and alphas of modules whose path matches a pattern.
        public var rankPattern: [String: Double] = [:]
        /// Values of α of modules whose path matches a pattern.
        public var alphaPattern: [String: Double] = [:]

        /// The default options.
        public init() {}

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
            if let groupSize, groupSize < 1 {
                throw PEFTError("the group size is \(groupSize)", remedy: "use 1 or more")
            }
            if let bad = rankPattern.first(where: {
                !($0.value >= 1 && $0.value <= 65536 && $0.value == $0.value.rounded())
            }
            ) {
                throw PEFTError(
                    "the rank for '\(bad.key)' is \(bad.value)", remedy: "use an integer of at least 1")
            }
            if let bad = alphaPattern.first(where: { !($0.value > 0 && $0.value.isFinite) }) {
                throw PEFTError("the alpha for '\(bad.key)' is \(bad.value)", remedy: "use a value above 0")
            }
            try selection.validate()
        }

        package enum Declaration: ConfigurationDeclaration {
            package static var fileDefaults: Configuration {
                var configuration = Configuration()
                (configuration.alpha, configuration.groupSize) = (8, 16)
                configuration.selection.allowsUnusedTargets = true
                return configuration
            }

            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "LoRA rank r"),
                    numberField(
                        "alpha", key: "lora_alpha", \.alpha, 0...1e6,
                        help: "LoRA alpha; the branch is scaled by alpha / rank"),
                    numberField(
                        "dropout", key: "lora_dropout", \.dropout, 0...0.99, help: "dropout on the branch's input"),
                    .init(
                        "group-size", key: "qalora_group_size", .integer(1...65536),
                        help: "inputs per pooled group (default: the base's group size, or 32)"
                    ) {
                        $0.groupSize.map(JSON.integer) ?? .null
                    } write: {
                        $0.groupSize = try integer($1)
                    },
                    .init(
                        "group-pooling", key: "swift_peft_qalora_pooling", .choice(Pooling.allCases.map(\.rawValue)),
                        help:
                            "pooling: sum (the paper's), mean, or scaled-mean (Hugging Face's: mean times number of groups)",
                        isExtension: true
                    ) {
                        $0.pooling == .scaledMean ? .null : .string($0.pooling.rawValue)
                    } write: {
                        guard let pooling = Pooling(rawValue: try text($1)) else {
                            throw PEFTError(
                                "unknown pooling '\($1.string ?? "")'", remedy: "use scaled-mean, sum or mean")
                        }
                        $0.pooling = pooling
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
                    // Distinguishes the file from plain LoRA, for Hugging Face PEFT and for this reader.
                    .init(
                        "qalora", key: "use_qalora", .flag, help: "QA-LoRA's flag in adapter_config.json; always set"
                    ) {
                        _ in
                        true
                    } write: {
                        guard try flag($1) else {
                            throw PEFTError("'use_qalora' is false", remedy: "use the method lora")
                        }
                    },
                ] + targetFields(\.selection) + layerFields(\.selection)

            /// LoRA's neutral settings, and LoRA settings that can't be combined with pooling.
            package static let neutral: [String: [JSON]] = {
                var neutral = LoRA.Configuration.neutral
                neutral["use_qalora"] = nil
                for key in ["use_dora", "use_rslora", "lora_bias"] { neutral[key] = [false] }
                let variants = [
                    "alora_invocation_tokens", "kasa_config", "velora_config", "use_bdlora", "monteclora_config",
                    "corda_config", "lora_ga_config", "megatron_config", "layer_replication",
                ]
                for key in variants { neutral[key] = [] }
                neutral["bias"] = ["none"]
                neutral["init_lora_weights"] = [true, "gaussian", "orthogonal", false]
                neutral["trainable_token_indices"] = []
                return neutral
            }()
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = QALoRA.Configuration
        package static let name = "qalora"
        package static let peftType: String? = "LORA"
        package static let summary =
            "LoRA with group-pooled inputs that merges into an int4 base's zero points (Xu et al. 2023)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            let groups = configuration.groupSize.map { " g \($0)" } ?? ""
            return "QA-LoRA r \(configuration.rank)\(groups) (\(configuration.selection.label))"
        }

        package static func recognizes(_ json: [String: JSON]) -> Bool { json["use_qalora"] == true }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.selection = configuration.selection.resolved(for: model)
            if configuration.groupSize == nil {
                let sites = (try? configuration.selection.sites(in: model)) ?? model.linears
                configuration.groupSize = sites.lazy.compactMap(\.groupSize).first ?? 32
            }
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let configuration = resolved(configuration, for: model)
            let groupSize = configuration.groupSize ?? 32
            return try configuration.selection.sites(in: model).map { site in
                guard site.inputs.isMultiple(of: groupSize) else {
                    let sizes = [128, 64, 32, 16, 8, 4, 2].filter(site.inputs.isMultiple(of:)).map(String.init)
                    throw PEFTError(
                        "the \(site.inputs) inputs of \(site.path) aren't divisible by the group size \(groupSize)",
                        remedy: sizes.isEmpty
                            ? "exclude it" : "use a --group-size of \(sizes.joined(separator: ", "))")
                }
                let rank = try TargetSelection.value(for: site.path, in: configuration.rankPattern).map { Int($0) }
                let alpha = try TargetSelection.value(for: site.path, in: configuration.alphaPattern)
                let r = rank ?? configuration.rank
                let scale =
                    (alpha ?? configuration.alpha) / Double(r)
                    * configuration.pooling.factor(inputs: site.inputs, groupSize: groupSize)
                return .linear(
                    site.path,
                    [
                        .init("lora_A.weight", [r, site.inputs / groupSize]),
                        .init("lora_B.weight", [site.outputs, r]),
                    ]
                ) { linear, context in
                    QALoRAAdapter(
                        linear, rank: r, groupSize: groupSize, scale: scale, dropout: configuration.dropout,
                        context: context)
                }
            }
        }

        /// Files use Hugging Face's pooling; another pooling is expressed as another alpha per number of inputs.
        package static func fileConfiguration(_ configuration: Configuration, of adapter: Adapter) -> Configuration {
            guard configuration.pooling != .scaledMean, let groupSize = configuration.groupSize else {
                return configuration
            }
            var file = configuration
            file.pooling = .scaledMean
            file.alphaPattern = [:]
            for entry in adapter.attached {
                guard let update = entry.adapter as? QALoRAAdapter else { continue }
                let path = NSRegularExpression.escapedPattern(for: entry.path)
                let factor = Pooling.scaledMean.factor(inputs: update.inputs, groupSize: groupSize)
                file.alphaPattern[path] = update.scale * Double(update.rank) / factor
            }
            return file
        }
    }
}

/// The QA-LoRA branch of one projection.
final class QALoRAAdapter: Module, WeightAdapter, AdapterModule {
    /// A `[r, in / g]`, uniform in ±1/√(in / g) as in Hugging Face PEFT.
    @ParameterInfo(key: "lora_A.weight") var a: Tensor = .zeros([0])
    /// B `[out, r]`, initially 0.
    @ParameterInfo(key: "lora_B.weight") var b: Tensor = .zeros([0])
    let groupSize: Int
    /// s · c, the factor of the groups' sums.
    let scale: Double
    private let dropoutRate: Double
    var rank: Int { a.dim(0) }
    var inputs: Int { a.dim(1) * groupSize }

    init(
        _ linear: Linear, rank: Int, groupSize: Int, scale: Double, dropout: Double, context: AttachmentContext
    ) {
        (self.groupSize, self.scale, dropoutRate) = (groupSize, scale, dropout)
        super.init()
        let groups = linear.inputs / groupSize
        a = .empty([rank, groups], dtype: context.dtype, device: context.device)
        b = .zeros([linear.outputs, rank], dtype: context.dtype, device: context.device)
        guard context.device != .meta else { return }
        let bound = 1 / Double(groups).squareRoot()
        a.fillUniform(-bound, bound, from: &context.random)
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        let input = Functions.dropout(x, probability: probability, seed: seed)
        let groups = a.dim(1)
        let pooled = input.reshaped(Array(x.shape.dropLast()) + [groups, groupSize]).sum(axes: [-1])
        return Functions.loraBranch(base(x), x: pooled, a: a, b: b, scale: scale)
    }

    /// s · c · (B A), the delta of each output and group, `[out, in / g]`.
    private var update: Tensor { b.detached().to(.float64).matmul(a.detached().to(.float64)) * scale }

    func merged(into weight: Tensor) throws -> Tensor {
        let (outputs, groups) = (b.dim(0), a.dim(1))
        let spread = update.unsqueezed(2).expanded([outputs, groups, groupSize]).reshaped(outputs, groups * groupSize)
        return (weight.to(.float64) + spread).to(weight.dtype)
    }

    /// Shifts the zero points of a weight that is quantized in the same groups, or in subdivisions of them.
    func merged(into weight: any LinearWeight) throws -> (any LinearWeight)? {
        guard let weight = weight.grouped else { return nil }
        let own = weight.groupSize
        guard weight.hasPlainOrder else {
            throw PEFTError(
                "QA-LoRA can't be merged into a weight quantized with desc_act",
                remedy: "quantize the base without desc_act, or keep the adapter")
        }
        guard groupSize.isMultiple(of: own) else {
            throw PEFTError(
                "QA-LoRA with group size \(groupSize) can't be merged into a weight with group size \(own)",
                remedy: "train with --group-size \(own)")
        }
        // `[in / own, out]`
        let (groups, parts) = (a.dim(1), groupSize / own)
        let shift = update.T.unsqueezed(1).expanded([groups, parts, b.dim(0)]).reshaped(groups * parts, b.dim(0))
        let zeros = weight.zeros(as: .float64) - shift / weight.scales.tensor.to(.float64)
        return weight.with(zeros: zeros, as: a.dtype)
    }
}
