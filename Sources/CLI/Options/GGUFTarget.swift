import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Torch
import TorchNN

/// The GGUF types that `--to gguf-…` selects.
enum GGUFTarget {
    static let names = GGUFType.written.map { "gguf-" + $0.name.lowercased() }

    /// The GGUF type of the output; `nil` for another format.
    ///
    /// - Parameters:
    ///   - usual: the type for `gguf` alone.
    ///   - types: the supported types.
    /// - Throws: ``UsageError`` for an unsupported type.
    static func type(_ name: String, usual: GGUFType, among types: [GGUFType] = GGUFType.written) throws -> GGUFType?
    {
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
    static func output(_ path: String, as type: GGUFType?) throws -> URL {
        guard type != nil else { return try Output.folder(path) }
        guard GGUFHeader.isName(Output.url(path)) else {
            throw UsageError(
                "the output \(path) is not named like a GGUF file", remedy: "use a name that ends in .gguf")
        }
        try Output.check([path])
        return Output.url(path)
    }

    /// Writes a model with the tokenizer from `folder`.
    static func write(_ model: any LanguageModel, tokenizer folder: URL, as type: GGUFType, to url: URL) throws {
        try model.requireFiniteWeights()
        let table = model.namedModules().first { $0.path == model.inputEmbedding }?.module as? Embedding
        let tokenizer = try GGUFVocabulary.settings(folder: folder, size: table?.entries ?? 0)
        try model.writeGGUF(
            to: url, type: type, tokenizer: tokenizer, name: url.deletingPathExtension().lastPathComponent,
            replacing: false)
    }
}
