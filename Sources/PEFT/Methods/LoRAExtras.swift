import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Settings of Hugging Face's LoRA files other than the LoRA branches of projections.
public struct LoRAExtras: Sendable {
    /// The model's own biases that are trained.
    public var bias = BiasTraining.none
    /// Whether the LoRA branch has a bias: s · (B A x + b).
    public var hasBias = false
    /// Tokens whose embeddings are trained too.
    public var tokens = TrainedTokens()
    /// Whether an embedding's LoRA branch also applies to its tied output layer (`ensure_weight_tying`).
    public var tiesEmbeddings = false
    /// Adapted slices of fused projections; all if `nil`.
    package var slices: ProjectionSlices?
    /// How the model's layers are stacked anew.
    package var replication: LayerReplication?

    package init() {}

    func validate() throws {
        if hasBias, slices != nil {
            throw PEFTError("--lora-bias can't be combined with --slices", remedy: "remove one of them")
        }
        try slices?.validate()
        guard replication == nil || bias == .none && !tiesEmbeddings else {
            throw PEFTError(
                "layer_replication can't be combined with trained biases or tied embeddings",
                remedy: "remove --bias and --tie-embeddings")
        }
    }

    func attachments(
        for model: ModelOutline, linears: [ModelOutline.LinearSite], embeddings: [ModelOutline.EmbeddingSite],
        allowsNoBiases: Bool
    ) throws -> [Attachment] {
        if hasBias, let table = embeddings.first {
            throw PEFTError(
                "--lora-bias is not supported for the embedding '\(table.path)'", remedy: "remove --lora-bias")
        }
        return try bias.attachments(for: model, adapted: linears.map(\.path), allowsNone: allowsNoBiases)
            + tokens.attachments(for: model, adapted: (embeddings.map(\.path) + linears.map(\.path)))
    }
}

extension MethodConfiguration {
    static func extraFields(_ extras: WritableKeyPath<Self, LoRAExtras> & Sendable) -> [ConfigurationField<Self>] {
        [
            .init("lora-bias", key: "lora_bias", .flag, help: "add a trained bias to the LoRA branch") {
                .bool($0[keyPath: extras].hasBias)
            } write: {
                $0[keyPath: extras].hasBias = try flag($1)
            },
            .init(
                "layer-replication", key: "layer_replication", .text,
                help: "stack these ranges of layers, with shared weights: 0-4,2-5 makes 0,1,2,3,2,3,4",
                isExtension: true
            ) {
                $0[keyPath: extras].replication?.json ?? .null
            } write: {
                $0[keyPath: extras].replication = try LayerReplication($1)
            },
            .init(
                "trainable-tokens", key: "trainable_token_indices", .integers,
                help: "ids of tokens whose embeddings are trained too"
            ) {
                $0[keyPath: extras].tokens.json
            } write: {
                try $0[keyPath: extras].tokens.read($1)
            },
            .init(
                "tie-embeddings", key: MethodChoice.tyingKey, .flag,
                help: "adapt a tied output layer together with the embedding", isExtension: true
            ) {
                $0[keyPath: extras].tiesEmbeddings ? true : .null
            } write: {
                $0[keyPath: extras].tiesEmbeddings = try flag($1)
            },
            .init(
                "slices", key: "lora_slices", .names,
                help: "adapt only these slices of fused projections: q,v or true,false,true", isExtension: true
            ) {
                $0[keyPath: extras].slices?.json ?? .null
            } write: {
                $0[keyPath: extras].slices = try ProjectionSlices($1)
            },
        ]
    }
}

/// A LoRA branch with a bias, scaled together: y + s · (x Aᵀ Bᵀ + b).
final class BiasedLoRAAdapter: Module, LinearAdapter, AdapterModule {
    let update: LoRAAdapter
    /// `[out]`, initially 0.
    private let bias: Parameter
    private let scale: Double
    private let isOverBias: Bool

    init(_ update: LoRAAdapter, _ linear: Linear, scale: Double, context: AttachmentContext) {
        (self.update, self.scale) = (update, scale)
        bias = Parameter(.zeros([linear.outputs], dtype: context.dtype, device: context.device))
        isOverBias = linear.bias != nil
    }

    var adapterParameters: [AdapterParameter] {
        update.adapterParameters + [AdapterParameter("lora_B.bias", bias)]
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let y = update(x, base: base)
        let own = (bias.tensor * scale).to(y.dtype)
        switch update.activity(of: x) {
        case .all: return y + own
        case .none: return areGradientsEnabled ? y + own * 0 : y
        case .some(let mask): return y + mask.to(y.dtype) * own
        }
    }

    func merged(into weight: Tensor) throws -> Tensor {
        guard isOverBias else {
            throw PEFTError(
                "a LoRA branch with a bias can't be merged into a projection without one",
                remedy: "keep it as an adapter"
            )
        }
        return try update.merged(into: weight)
    }

    func merged(intoBias own: Tensor) throws -> Tensor { own + bias.tensor.detached().to(own.dtype) * scale }
}
