import Foundation
import LanguageModels
import PEFT
import Support
import Tokenizers

/// The base model that an adapter names in its `adapter_config.json`, where `--model` names none.
struct AdapterBase {
    /// The adapter's folder, for messages.
    let adapter: String
    /// What `base_model_name_or_path` says; `nil` where it says nothing.
    let name: String?

    init(_ configuration: [String: JSON], of folder: URL) {
        let name = configuration["base_model_name_or_path"]?.string?.trimmingCharacters(in: .whitespaces) ?? ""
        (adapter, self.name) = (folder.path, name.isEmpty ? nil : name)
    }

    /// The name of the base: the one given, or the adapter's.
    /// - Throws: ``PEFTError`` if there is none.
    func name(_ options: ModelOptions) throws -> String {
        if let name = options.model ?? name { return name }
        throw PEFTError("the adapter \(adapter) does not name its base model", remedy: "give --model")
    }

    /// The base's folder.
    ///
    /// - Parameters:
    ///   - storage: how the base was kept in memory where the adapter was trained; `embeddings` the same for its vocabulary.
    /// - Throws: ``PEFTError``, which tells where the name comes from, if there is no such model.
    func folder(_ options: ModelOptions, keeping storage: WeightStorage? = nil, embeddings: WeightStorage? = nil)
        throws
        -> ModelFolder
    {
        let name = try name(options)
        do {
            return try options.folder(default: name, keeping: storage, embeddings: embeddings)
        } catch let error as PEFTError where options.model == nil {
            throw PEFTError(
                "the base model '\(name)' that \(adapter)/adapter_config.json names can't be used: \(error.problem)",
                remedy: "give --model" + (error.remedy.map { "; \($0)" } ?? ""))
        }
    }

    /// The folder whose tokenizer belongs to the adapter: its own where it has one, as trainers write it beside what they
    /// trained, and else the base's.
    static func tokenizerFolder(_ adapter: URL, base: ModelFolder) throws -> URL {
        let names = try Tokenizer.files(in: adapter).map(\.name)
        let isWhole = ["tokenizer.json", "spiece.model", "tokenizer.model", "vocab.json", "vocab.txt"].contains {
            names.contains($0)
        }
        return isWhole ? adapter : base.url
    }
}
