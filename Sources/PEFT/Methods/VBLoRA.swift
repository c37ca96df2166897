import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// LoRA from a vector bank (Li et al. 2024, eq. 4): the vectors that make up A and B are mixtures of the k best of a bank
/// that all projections share; trained are the bank and the logits of the mixtures.
public enum VBLoRA: BuiltInMethod {
    /// Options of ``VBLoRA``.
    public struct Configuration: TargetedConfiguration {
        /// Rank r.
        public var rank = 4
        /// Number of vectors in the bank.
        public var vectors = 256
        /// Length of a vector, a divisor of all inputs and outputs.
        public var length = 256
        /// Number k of vectors in a mixture.
        public var top = 2
        /// Dropout probability of the branch's input.
        public var dropout = 0.0
        /// The bank is initialized uniformly in ± this value.
        public var bankBound = 0.02
        /// Standard deviation of the initial logits.
        public var logitDeviation = 0.1
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package func check() throws {
            guard top <= vectors else {
                throw PEFTError(
                    "a mixture of \(top) vectors from a bank of \(vectors)",
                    remedy: "set --mixture-size to --vectors or less")
            }
            try selection.validate()
        }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "rank of ΔW"),
                    integerField(
                        "vectors", key: "num_vectors", \.vectors, 1...1_048_576, help: "vectors in the shared bank"),
                    integerField(
                        "vector-length", key: "vector_length", \.length, 1...65536,
                        help: "length of a vector, a divisor of all inputs and outputs"),
                    integerField("mixture-size", key: "topk", \.top, 1...65536, help: "vectors in a mixture"),
                    numberField(
                        "dropout", key: "vblora_dropout", \.dropout, 0...0.99, help: "dropout on the branch's input"),
                    numberField(
                        "bank-bound", key: "init_vector_bank_bound", \.bankBound, 0...1e3,
                        help: "bound of the bank's initial values"),
                    numberField(
                        "logit-deviation", key: "init_logits_std", \.logitDeviation, 0...1e3,
                        help: "standard deviation of the initial logits"),
                ] + selectionFields()

            package static let neutral: [String: [JSON]] = [
                "bias": ["none"], "fan_in_fan_out": [false, true],
                // Such a file has indices and weights instead of logits, and can't be trained further.
                "save_only_topk_weights": [false],
            ]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = VBLoRA.Configuration
        package static let name = "vblora"
        package static let peftType: String? = "VBLORA"
        package static let summary = "LoRA whose factors are mixtures from a shared vector bank (Li et al. 2024)"
        package static let defaultLearningRate = 1e-2
        package static let start = AdapterStart.changed

        package static func label(_ configuration: Configuration) -> String {
            "VB-LoRA r \(configuration.rank), \(configuration.vectors) vectors (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let (rank, vectors, length) = (configuration.rank, configuration.vectors, configuration.length)
            return try sites(configuration, in: model).map { site in
                try requireDivisor(length, of: site, option: "vector-length")
                return .linear(
                    site.path,
                    [
                        .init("vblora_logits_A", [rank, site.inputs / length, vectors]),
                        .init("vblora_logits_B", [site.outputs / length, rank, vectors]),
                        .init("base_model.vblora_vector_bank", [vectors, length]),
                    ]
                ) { linear, context in
                    let bank = context.shared("vblora") {
                        Parameter(context.uniform([vectors, length], bound: configuration.bankBound))
                    }
                    return VBLoRAAdapter(linear, configuration, bank: bank, context)
                }
            }
        }
    }
}

final class VBLoRAAdapter: Module, LowRankDelta {
    /// `[r, in / length, vectors]`.
    @ParameterInfo(key: "vblora_logits_A") var logitsA: Tensor = .zeros([0])
    /// `[out / length, r, vectors]`.
    @ParameterInfo(key: "vblora_logits_B") var logitsB: Tensor = .zeros([0])
    let dropoutRate: Double
    /// `[vectors, length]`, shared by all projections.
    private let bank: Parameter
    private let top: Int

    init(_ linear: Linear, _ configuration: VBLoRA.Configuration, bank: Parameter, _ context: AttachmentContext) {
        (self.bank, top, dropoutRate) = (bank, configuration.top, configuration.dropout)
        super.init()
        let (rank, vectors, length) = (configuration.rank, configuration.vectors, configuration.length)
        logitsA = context.normal([rank, linear.inputs / length, vectors], deviation: configuration.logitDeviation)
        logitsB = context.normal([linear.outputs / length, rank, vectors], deviation: configuration.logitDeviation)
    }

    var adapterParameters: [AdapterParameter] {
        ownParameters().map { AdapterParameter($0.key, $0.parameter) }
            + [AdapterParameter("base_model.vblora_vector_bank", bank)]
    }

    /// The mixtures `[…, length]` for logits `[…, vectors]`.
    private func mixtures(_ logits: Tensor, _ bank: Tensor) -> Tensor {
        let (values, indices) = logits.topK(top)
        let vectors = bank.selecting(indices.reshaped(-1)).reshaped(indices.shape + [bank.dim(1)])
        return (values.softmax().unsqueezed(-1) * vectors).sum(axes: [indices.shape.count - 1])
    }

    func factors(_ cast: (Tensor) -> Tensor) -> (a: Tensor, b: Tensor) {
        let bank = cast(bank.tensor)
        let rank = logitsA.dim(0)
        let a = mixtures(cast(logitsA), bank).reshaped(rank, -1)
        // `[out / length, r, length]` -> `[out, r]`
        return (a, mixtures(cast(logitsB), bank).transposed(1, 2).reshaped(-1, rank))
    }
}
