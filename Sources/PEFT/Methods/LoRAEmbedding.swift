import LanguageModels
import Support
import Torch
import TorchNN

/// LoRA over an embedding E `[entries, size]`: row i becomes E_i + s · (B A)ᵀ_i. A tied output layer sees the delta
/// only if both stay tied.
class LoRAEmbeddingAdapter: Module, EmbeddingAdapter, AdapterModule {
    /// `[r, entries]`, initially 0, so that training starts at the base model.
    @ParameterInfo var a: Tensor
    /// `[size, r]`, initially N(0, 1).
    @ParameterInfo var b: Tensor
    let scale: Double
    /// Path of the tied output layer that sees the delta.
    private let tiedOutput: String?

    static func attachment(
        at table: ModelOutline.EmbeddingSite, in model: ModelOutline, rank: Int, scale: Double, isDoRA: Bool,
        tiedOutput: String?
    ) throws -> Attachment {
        if let view = model.views(of: table).first {
            // Hugging Face PEFT also attaches there, but no module looks up tokens in it.
            let name = view.path.split(separator: ".").last.map(String.init) ?? view.path
            throw PEFTError(
                "no module of this \(model.family) model looks up tokens in '\(table.path)' directly",
                remedy:
                    "target '\(name)' instead, which covers \(model.views(of: table).map(\.path).joined(separator: ", "))"
            )
        }
        guard !isDoRA || tiedOutput == nil else {
            throw PEFTError(
                "DoRA over '\(table.path)' can't share its magnitudes with the tied output layer",
                remedy: "remove --tie-embeddings or --dora")
        }
        // Files store a tied delta a second time, as the output layer's.
        let copies: (a: [String], b: [String]) =
            tiedOutput.map {
                (["\(AdapterKeys.prefix)\($0).lora_B.weight"], ["\(AdapterKeys.prefix)\($0).lora_A.weight"])
            } ?? ([], [])
        let magnitude = isDoRA ? [TensorSpec("lora_magnitude_vector", [table.size])] : []
        return .embedding(
            table.path,
            [
                .init("lora_embedding_A", [rank, table.entries], transposedCopies: copies.a),
                .init("lora_embedding_B", [table.size, rank], transposedCopies: copies.b),
            ] + magnitude
        ) { table, context in
            isDoRA
                ? DoRAEmbeddingAdapter(table, rank: rank, scale: scale, context: context)
                : LoRAEmbeddingAdapter(table, rank: rank, scale: scale, tiedOutput: tiedOutput, context: context)
        }
    }

    init(_ table: Embedding, rank: Int, scale: Double, tiedOutput: String? = nil, context: AttachmentContext) {
        let (dtype, device) = (context.dtype, context.device)
        let b = Tensor.empty([table.size, rank], dtype: dtype, device: device)
        if device != .meta { b.fillNormal(from: &context.random) }
        _a = ParameterInfo(
            wrappedValue: .zeros([rank, table.entries], dtype: dtype, device: device), key: "lora_embedding_A")
        _b = ParameterInfo(wrappedValue: b, key: "lora_embedding_B")
        (self.scale, self.tiedOutput) = (scale, tiedOutput)
    }

    func storedTensors() -> [String: Tensor] {
        var tensors = adapterParameters.reduce(into: [:]) { $0[$1.key] = $1.parameter.tensor }
        if let tiedOutput {
            let prefix = "\(AdapterKeys.prefix)\(tiedOutput)."
            tensors[prefix + "lora_A.weight"] = b.detached().T.contiguous()
            tensors[prefix + "lora_B.weight"] = a.detached().T.contiguous()
        }
        return tensors
    }

    /// The delta of rows `ids` `[...]` -> `[..., size]`.
    func update(_ ids: Tensor, like vectors: Tensor) -> Tensor {
        // Only the columns of these tokens: `[tokens, r]` Bᵀ.
        let columns = a.transposed().selecting(ids.reshaped(-1))
        let update = columns.matmul(b.transposed()) * scale
        return update.to(vectors.dtype).reshaped(vectors.shape)
    }

    func callAsFunction(_ vectors: Tensor, ids: Tensor, weight: any LinearWeight) -> Tensor {
        vectors + update(ids, like: vectors)
    }

    func merged(into weight: Tensor) throws -> Tensor {
        let update = b.detached().to(.float64).matmul(a.detached().to(.float64)).transposed() * scale
        return (weight.to(.float64) + update).to(weight.dtype)
    }

    func outputWeight(_ weight: any LinearWeight) -> any LinearWeight {
        tiedOutput == nil ? weight : WeightWithDelta(weight, a: b.T, b: a.T, scale: scale)
    }
    var reachesTiedOutput: Bool { tiedOutput != nil }
}

/// DoRA over an embedding, with a magnitude per embedding dimension as in Hugging Face PEFT: the columns of E + s (B
/// A)ᵀ are scaled to the norms m `[size]`.
final class DoRAEmbeddingAdapter: LoRAEmbeddingAdapter {
    @ParameterInfo(key: "lora_magnitude_vector") var magnitude: Tensor = .zeros([0])
    /// The embedding when the adapter was attached.
    private let original: any LinearWeight
    /// ‖E‖² of each column, `[size]`.
    private lazy var squaredNorms = withoutGradients { original.dense(as: a.dtype).squared().sum(axes: [0]) }

    init(_ table: Embedding, rank: Int, scale: Double, context: AttachmentContext) {
        original = table.weight.snapshot()
        super.init(table, rank: rank, scale: scale, context: context)
        magnitude = withoutGradients {
            context.device == .meta
                ? .empty([table.size], dtype: context.dtype, device: .meta) : norms().detached().clone()
        }
    }

    /// ‖E + s (B A)ᵀ‖ of each column, `[size]`, without forming the sum: as for a projection, with the transposed
    /// embedding.
    private func norms() -> Tensor {
        let cross = (original.dense(as: a.dtype).T.matmul(a.T) * b).sum(axes: [1])
        let update = (b.matmul(a.matmul(a.T)) * b).sum(axes: [1])
        return (squaredNorms + cross * (2 * scale) + update * (scale * scale)).atLeast(0).sqrt()
    }

    override func callAsFunction(_ vectors: Tensor, ids: Tensor, weight: any LinearWeight) -> Tensor {
        let gain = magnitude / withoutGradients { norms().detached() }
        return (vectors + update(ids, like: vectors)) * gain.to(vectors.dtype)
    }

    override func merged(into weight: Tensor) throws -> Tensor {
        let whole = try super.merged(into: weight.to(.float64))
        let norm = try super.merged(into: original.dense(as: .float64)).squared().sum(axes: [0]).sqrt()
        return (whole * (magnitude.detached().to(.float64) / norm)).to(weight.dtype)
    }
}
