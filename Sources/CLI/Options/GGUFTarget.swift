import Foundation
import LanguageModels
import Support
import Tokenizers
import Torch
import TorchNN

/// What `--to gguf-…` asks for.
enum GGUFTarget {
    static let names = GGUFType.written.map { "gguf-" + $0.name.lowercased() }

    /// The type of a GGUF file's numbers; `nil` where another format is asked for.
    ///
    /// - Parameters:
    ///   - usual: what `gguf` alone means.
    ///   - types: those that can be.
    /// - Throws: ``PEFTError`` for a type that isn't written.
    static func type(_ name: String, usual: GGUFType, among types: [GGUFType] = GGUFType.written) throws -> GGUFType?
    {
        let name = name.lowercased()
        guard name != "gguf" else { return usual }
        guard name.hasPrefix("gguf-") else { return nil }
        guard let type = types.first(where: { "gguf-" + $0.name.lowercased() == name }) else {
            throw UsageError(
                "--to is '\(name)'",
                remedy: "there are \(types.map { "gguf-" + $0.name.lowercased() }.joined(separator: ", "))")
        }
        return type
    }

    /// The output of a command, checked before the work: a folder, or a file where a type says GGUF.
    static func output(_ path: String, as type: GGUFType?) throws -> URL {
        guard type != nil else { return try Output.folder(path) }
        guard GGUFHeader.isName(Output.url(path)) else {
            throw UsageError("the output \(path) is to be a GGUF file", remedy: "end its name in .gguf")
        }
        try Output.check([path])
        return Output.url(path)
    }

    /// Writes a model with the tokenizer of a folder.
    static func write(_ model: any LanguageModel, tokenizer folder: URL, as type: GGUFType, to url: URL) throws {
        try model.requireFiniteWeights()
        let table = model.namedModules().first { $0.path == model.inputEmbedding }?.module as? Embedding
        let tokenizer = try GGUFVocabulary.settings(folder: folder, size: table?.entries ?? 0)
        try model.writeGGUF(
            to: url, type: type, tokenizer: tokenizer, name: url.deletingPathExtension().lastPathComponent,
            replacing: false)
    }
}
