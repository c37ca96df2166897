import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Minor component adaptation (MiCA, 2026): B holds the r left singular vectors of the weight with the smallest singular
/// values and is not trained; A begins at zero. Over an embedding E, those of Eᵀ.
public struct MiCA: BuiltInMethod, LoRAInitialization {
    package init() {}

    package func label(_ name: String) -> String { "MiCA" }

    package var trainsB: Bool { false }
    package var supportsBias: Bool { false }

    package func validate(beside variants: LoRAVariants) throws {
        guard variants.used.allSatisfy({ $0 is MiCA || $0 is RsLoRA || $0 is LoRAPlus || $0 is Megatron }) else {
            throw PEFTError(
                "MiCA can't be combined with other variants of LoRA, which train B", remedy: "remove one of them")
        }
    }

    package func adapter(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & LinearAdapter)?
    {
        let adapter = LoRAAdapter(linear, branch, context)
        try begin(a: adapter.a, b: adapter.b, linear.weight, rank: branch.rank, context) { $0 }
        return adapter
    }

    package func adapter(over table: Embedding, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & EmbeddingAdapter)?
    {
        let adapter = LoRAEmbeddingAdapter(table, branch, tiedOutput: nil, context)
        try begin(a: adapter.a, b: adapter.b, table.weight, rank: branch.rank, context) { $0.T }
        return adapter
    }

    package func validate(embedding path: String, isTied: Bool) throws {
        guard !isTied else {
            throw PEFTError(
                "MiCA over '\(path)' can't be tied to the output layer", remedy: "remove --tie-embeddings or --init")
        }
    }

    /// Sets B to the minor directions of the weight, seen as a projection, and A to zero.
    private func begin(
        a: Tensor, b: Tensor, _ weight: any LinearWeight, rank: Int, _ context: AttachmentContext,
        asProjection: (Tensor) -> Tensor
    ) throws {
        guard context.device != .meta else { return }
        try ResidualLoRAAdapter.check(rank: rank, of: weight)
        a.copy(from: .zeros(like: a))
        // A file holds the directions that it was trained with.
        guard !context.isLoading else { return }
        withoutGradients {
            let (u, _, _) = asProjection(weight.dense(as: .float64)).svd()
            let least = u.dim(1)
            b.copy(from: u.narrowed(axis: 1, (least - rank)..<least).to(b.dtype))
        }
    }

    package enum Implementation: LoRAFamily {
        package static let name = "mica"
        package static let summary = "LoRA whose B is frozen at the weight's minor singular vectors (MiCA, 2026)"

        package static func recognizes(_ json: [String: JSON]) -> Bool { json["init_lora_weights"] == "mica" }

        package static func configure(_ configuration: inout LoRA.Configuration) {
            configuration.variants.initialization = MiCA()
        }
    }
}
