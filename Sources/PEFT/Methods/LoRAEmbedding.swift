import LanguageModels
import Support
import Torch
import TorchNN

/// The update of a table of vectors E [entries, size]: row i becomes E_i + s · (B A)ᵀ_i. An output layer that is the
/// same matrix doesn't see it.
final class LoRAEmbeddingAdapter: Module, EmbeddingAdapter, AdapterModule {
    /// [r, entries], zero, so that training starts at the base model.
    @ParameterInfo var a: Tensor
    /// [size, r], standard normal.
    @ParameterInfo var b: Tensor
    let scale: Double

    static func attachment(
        at table: ModelOutline.EmbeddingSite, in model: ModelOutline, rank: Int, scale: Double
    ) throws -> Attachment {
        if let view = model.views(of: table).first {
            // Hugging Face attaches there, too, and no part of the model looks.
            let name = view.path.split(separator: ".").last.map(String.init) ?? view.path
            throw PEFTError(
                "no part of this \(model.family) model looks up in '\(table.path)' itself",
                remedy:
                    "name '\(name)', which is where \(model.views(of: table).map(\.path).joined(separator: ", ")) do")
        }
        return .embedding(
            table.path,
            [.init("lora_embedding_A", [rank, table.entries]), .init("lora_embedding_B", [table.size, rank])]
        ) { table, context in LoRAEmbeddingAdapter(table, rank: rank, scale: scale, context: context) }
    }

    init(_ table: Embedding, rank: Int, scale: Double, context: AttachmentContext) {
        let (dtype, device) = (context.dtype, context.device)
        let b = Tensor.empty([table.size, rank], dtype: dtype, device: device)
        if device != .meta { b.fillNormal(from: &context.random) }
        _a = ParameterInfo(
            wrappedValue: .zeros([rank, table.entries], dtype: dtype, device: device), key: "lora_embedding_A")
        _b = ParameterInfo(wrappedValue: b, key: "lora_embedding_B")
        self.scale = scale
    }

    func callAsFunction(_ vectors: Tensor, ids: Tensor, weight: any LinearWeight) -> Tensor {
        // The columns of these tokens alone: [tokens, r] Bᵀ.
        let columns = a.transposed().selecting(ids.reshaped(-1))
        let update = columns.matmul(b.transposed()) * scale
        return vectors + update.to(vectors.dtype).reshaped(vectors.shape)
    }

    func merged(into weight: Tensor) throws -> Tensor {
        let update = b.detached().to(.float64).matmul(a.detached().to(.float64)).transposed() * scale
        return (weight.to(.float64) + update).to(weight.dtype)
    }
}
