import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Gathers partitioned weights around a site, whose adapter's initial values may depend on them.
struct PartitionedSites {
    private let base: PartitionedBase?
    private let parts: [(path: String, part: PartitionedBase.Part)]
    private let table: PartitionedBase.Part?

    init(_ model: any LanguageModel) {
        base = model.partitionedBase
        table = base.flatMap { _ in model.vocabularyTable?.part }
        parts = base == nil ? [] : model.namedModules().compactMap { path, module in module.part.map { (path, $0) } }
    }

    /// Gathers the part that a path is in. Sites outside of all parts are those of prompts, which may begin with embeddings.
    func gather(_ path: String) throws -> PartitionedBase.Part? {
        guard base != nil else { return nil }
        let part = parts.first { path == $0.path || path.hasPrefix($0.path + ".") }?.part ?? table
        try part?.gather()
        return part
    }

    /// The error of a method that reads weights which are not gathered, with its name.
    static func naming(_ label: String, in error: any Error) -> any Error {
        guard let error = error as? PEFTError, error.problem.contains("needed outside of their layer") else {
            return error
        }
        return PEFTError(
            "\(label) needs the weights of several layers at once, which --shard-base divides",
            remedy: "remove --shard-base, or use another method")
    }

    /// - Throws: ``PEFTError`` for a partitioned tensor that is trained in place.
    func check(_ parameter: Parameter, _ attachment: Attachment) throws {
        guard !attachment.keepsBase, base?.partitioned(parameter.tensor) != nil else { return }
        throw PEFTError(
            "the method trains the model's '\(attachment.path)', of which each process has a part with --shard-base",
            remedy: "remove --shard-base, or use a method that freezes the base, such as lora")
    }
}
