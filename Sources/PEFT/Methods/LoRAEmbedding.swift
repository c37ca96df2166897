import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// LoRA over an embedding E `[entries, size]`: row i becomes E_i + s · (B A)ᵀ_i. A tied output layer sees the delta
/// only if both stay tied.
class LoRAEmbeddingAdapter: Module, TiedEmbeddingAdapter, AdapterModule {
    /// `[r, entries]`, initially 0, so that training starts at the base model.
    @ParameterInfo var a: Tensor
    /// `[size, r]`, initially N(0, 1).
    @ParameterInfo var b: Tensor
    let scale: Double
    /// Path of the tied output layer that sees the delta.
    private let tiedOutput: String?
    private let trainsB: Bool

    static func attachment(
        at table: ModelOutline.EmbeddingSite, in model: ModelOutline, _ branch: LoRABranch, _ variants: LoRAVariants,
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
        let used = variants.used
        for variant in used { try variant.validate(embedding: table.path, isTied: tiedOutput != nil) }
        // Files store a tied delta a second time, as the output layer's.
        let copies: (a: [String], b: [String]) =
            tiedOutput.map {
                (["\(AdapterKeys.prefix)\($0).lora_B.weight"], ["\(AdapterKeys.prefix)\($0).lora_A.weight"])
            } ?? ([], [])
        return .embedding(
            table.path,
            [
                .init("lora_embedding_A", [branch.rank, table.entries], transposedCopies: copies.a),
                .init(
                    "lora_embedding_B", [table.size, branch.rank], isTrained: branch.trainsB,
                    transposedCopies: copies.b),
            ] + variants.addedTensors(rank: branch.rank, inputs: table.entries, outputs: table.size)
        ) { table, context in
            for variant in used {
                if let adapter = try variant.adapter(over: table, branch, context) { return adapter }
            }
            return LoRAEmbeddingAdapter(table, branch, tiedOutput: tiedOutput, context)
        }
    }

    init(_ table: Embedding, _ branch: LoRABranch, tiedOutput: String?, _ context: AttachmentContext) {
        let (dtype, device, rank) = (context.dtype, context.device, branch.rank)
        let b = Tensor.empty([table.size, rank], dtype: dtype, device: device)
        if device != .meta { b.fillNormal(from: &context.random) }
        _a = ParameterInfo(
            wrappedValue: .zeros([rank, table.entries], dtype: dtype, device: device), key: "lora_embedding_A")
        _b = ParameterInfo(wrappedValue: b, key: "lora_embedding_B")
        (scale, self.tiedOutput, trainsB) = (branch.scale, tiedOutput, branch.trainsB)
    }

    var adapterParameters: [AdapterParameter] {
        parameters().map { path, parameter in
            AdapterParameter(path, parameter, isTrained: trainsB || path != "lora_embedding_B")
        }
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

    func callAsFunction(_ vectors: Tensor, ids: Tensor) -> Tensor {
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
