import PEFTSupport
import Torch
import TorchNN

/// Per-layer embeddings of Gemma 3n and Gemma 4: each layer gets a small vector of each token, the sum of an embedding and of a
/// normalized projection of the embedded token.
final class PerLayerEmbeddings: Module {
    struct Settings: Sendable {
        var vocabularySize: Int
        /// Size of a layer's vector.
        var size: Int
        var layers: Int
        var hiddenSize: Int
        var epsilon: Double
        /// Whether tokens outside the table have the vector of token 0.
        var hasFallback = false
        /// Whether token 0 is the padding token, whose vector isn't trained.
        var hasFixedFallback: Bool

        /// `nil` if `hidden_size_per_layer_input` is 0.
        init?(_ read: ConfigurationReader, layers: Int, hiddenSize: Int, epsilon: Double) throws {
            vocabularySize = try read.integer("vocab_size_per_layer_input", .vocabulary, default: 262_144)
            let limit = ConfigurationReader.Size.width.rawValue
            // Null is none, too.
            let isNull = read.json["hidden_size_per_layer_input"] == .null
            size = try isNull ? 0 : read.integer("hidden_size_per_layer_input", default: 256, in: 0...limit)
            (self.layers, self.hiddenSize, self.epsilon) = (layers, hiddenSize, epsilon)
            let padding = read.json["pad_token_id"]
            hasFixedFallback = padding != .null && padding?.int ?? 0 == 0
            guard size > 0 else { return nil }
        }
    }

    @ModuleInfo(key: "embed_tokens_per_layer") var table: Embedding
    @ModuleInfo(key: "per_layer_model_projection") var projection: Linear
    @ModuleInfo(key: "per_layer_projection_norm") var norm: RMSNorm
    private let settings: Settings

    init(_ settings: Settings) {
        self.settings = settings
        let width = settings.layers * settings.size
        _table.wrappedValue = Embedding(settings.vocabularySize, width)
        _projection.wrappedValue = Linear(settings.hiddenSize, width, bias: false)
        _norm.wrappedValue = RMSNorm(settings.size, epsilon: settings.epsilon)
    }

    /// Embedded tokens `[tokens, hiddenSize]` -> the vectors of each layer, `[tokens, size]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> [Tensor] {
        guard var ids = context.ids else {
            reportFailure(
                PEFTError(
                    "virtual tokens have no per-layer embeddings",
                    remedy: "use a method without a soft prompt, such as lora"))
            return Array(repeating: x.narrowed(axis: 1, 0..<settings.size), count: settings.layers)
        }
        let isInside = settings.hasFallback ? ids.less(than: Double(settings.vocabularySize)) : nil
        if let isInside { ids = ids.selecting(where: isInside, else: .zeros(like: ids)) }
        let shape = [x.dim(0), settings.layers, settings.size]
        let scale = 1 / Double(settings.hiddenSize).squareRoot()
        let projected = norm((projection(x) * scale).reshaped(shape))
        var looked = table(ids)
        if let isInside, settings.hasFixedFallback {
            looked = looked.selecting(where: isInside.unsqueezed(1), else: looked.detached())
        }
        looked = looked.reshaped(shape) * Double(settings.size).squareRoot()
        return ((projected + looked) * 0.5.squareRoot()).split(axis: 1, Array(repeating: 1, count: settings.layers))
            .map { $0.reshaped(x.dim(0), settings.size) }
    }
}

/// A layer's use of its per-layer embedding e: x + norm(W₂ (f(W₁ x) ⊙ e)).
final class PerLayerGate: Module {
    @ModuleInfo(key: "per_layer_input_gate") var gate: Linear
    @ModuleInfo(key: "per_layer_projection") var projection: Linear
    @ModuleInfo(key: "post_per_layer_input_norm") var norm: RMSNorm
    private let activation: Activation

    init(_ settings: PerLayerEmbeddings.Settings, activation: Activation) {
        self.activation = activation
        _gate.wrappedValue = Linear(settings.hiddenSize, settings.size, bias: false)
        _projection.wrappedValue = Linear(settings.size, settings.hiddenSize, bias: false)
        _norm.wrappedValue = RMSNorm(settings.hiddenSize, epsilon: settings.epsilon)
    }

    /// norm(W₂ (f(W₁ x) ⊙ e)) of x `[tokens, hiddenSize]` and e `[tokens, size]`.
    func callAsFunction(_ x: Tensor, _ vectors: Tensor) -> Tensor {
        norm(projection(activation.gated(gate(x), vectors)))
    }
}
