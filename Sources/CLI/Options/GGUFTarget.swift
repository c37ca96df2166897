import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Torch
import TorchNN

/// The GGUF formats that `--to gguf-…` selects.
enum GGUFTarget {
    static let names = GGUFFormat.all.map { "gguf-" + $0.name.lowercased() }

    /// The GGUF format of the output; `nil` for another format.
    ///
    /// - Parameters:
    ///   - usual: the format for `gguf` alone.
    ///   - types: the supported formats.
    /// - Throws: ``UsageError`` for an unsupported format.
    static func type(
        _ name: String, usual: GGUFFormat, among types: [GGUFFormat] = GGUFFormat.all
    ) throws -> GGUFFormat? {
        let name = name.lowercased()
        guard name != "gguf" else { return usual }
        guard name.hasPrefix("gguf-") else { return nil }
        guard let type = types.first(where: { "gguf-" + $0.name.lowercased() == name }) else {
            throw UsageError(
                "unknown --to '\(name)'",
                remedy: "use one of \(types.map { "gguf-" + $0.name.lowercased() }.joined(separator: ", "))")
        }
        return type
    }

    /// The output of a command, checked before the work starts: a file for a GGUF type, else a folder.
    static func output(_ path: String, as type: GGUFFormat?) throws -> URL {
        guard type != nil else { return try Output.folder(path) }
        guard GGUFHeader.isName(Output.url(path)) else {
            throw UsageError(
                "the output \(path) is not named like a GGUF file", remedy: "use a name that ends in .gguf")
        }
        try Output.check([path])
        return Output.url(path)
    }

    /// Compares the logits of a written file with those of the model, or of its adapter.
    static func drift(
        of file: URL, as type: GGUFFormat, from logits: [Tensor], on batches: [TrainingBatch]
    ) throws -> MergeDrift {
        let stored = try ModelFolder(file).load(device: batches.first?.input.ids.device ?? .cpu)
        return try .between(logits, MergeDrift.logits(of: stored, on: batches), name: "GGUF \(type.name)")
    }

    /// A line about a file's drift.
    static func line(_ drift: MergeDrift, from original: String) -> String {
        String(
            format: "logits of the file, compared with %@: maximum difference %.2e, mean %.2e, same argmax %.1f %%",
            original, drift.largest, drift.mean, drift.agreement * 100)
    }

    /// A file's drift in JSON, which has no infinity.
    static func json(_ drift: MergeDrift) -> JSON {
        func number(_ value: Double) -> JSON { value.isFinite ? .number(value) : .null }
        return [
            "dtype": .string(drift.dtype), "largest": number(drift.largest), "mean": number(drift.mean),
            "agreement": .number(drift.agreement),
        ]
    }

    /// Writes a model with the tokenizer from `folder`.
    static func write(_ model: any LanguageModel, tokenizer folder: URL, as type: GGUFFormat, to url: URL) throws {
        try model.requireFiniteWeights()
        let table = model.namedModules().first { $0.path == model.inputEmbedding }?.module as? Embedding
        let tokenizer = try GGUFVocabulary.settings(folder: folder, size: table?.entries ?? 0)
        try model.writeGGUF(
            to: url, type: type, tokenizer: tokenizer, name: url.deletingPathExtension().lastPathComponent,
            replacing: false)
    }
}
