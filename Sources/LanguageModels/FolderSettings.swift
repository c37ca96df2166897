import Foundation
import PEFTSupport

/// Settings for using a model that are stored in files next to its weights.
public struct FolderSettings: Sendable {
    /// Source of the generation settings.
    package var generation: GenerationSource?
    /// Maximum sequence length of a sentence-transformers model (`max_seq_length` in `sentence_bert_config.json`), in
    /// tokens.
    package var maximumTextLength: Int?

    /// Dense layers over pooled embeddings, of a sentence-transformers model.
    var denses: [PooledDense] = []

    package init() {}

    /// - Parameter configuration: `config.json`.
    init(folder: URL, configuration: JSON) throws {
        generation = GenerationSource(folder: folder, configuration: configuration)
        denses = try PooledDense.read(in: folder)
        let file = folder.appendingPathComponent("sentence_bert_config.json")
        guard FileManager.default.fileExists(atPath: file.path) else { return }
        guard let value = try JSON.read(file)["max_seq_length"], value != .null else { return }
        guard let length = value.int, length >= 2 else {
            throw PEFTError(
                "\(file.path): 'max_seq_length' is \(value.text(indent: nil))",
                remedy: "use a number of tokens of at least 2")
        }
        maximumTextLength = length
    }
}
