import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers

/// The base model of an adapter: `--model`, or else the one its `adapter_config.json` names.
struct AdapterBase {
    /// The adapter's folder, for error messages.
    let adapter: String
    /// `base_model_name_or_path`; `nil` if missing or empty.
    let name: String?

    init(_ configuration: [String: JSON], of folder: URL) {
        let name = configuration["base_model_name_or_path"]?.string?.trimmingCharacters(in: .whitespaces) ?? ""
        (adapter, self.name) = (folder.path, name.isEmpty ? nil : name)
    }

    /// The name of the base model: `--model`, or else the adapter's.
    /// - Throws: ``PEFTError`` if there is none.
    func name(_ options: ModelOptions) throws -> String {
        if let name = options.model ?? name { return name }
        throw PEFTError("the adapter \(adapter) does not name its base model", remedy: "give --model")
    }

    /// The base's folder.
    ///
    /// - Parameters:
    ///   - storage: the base's weight format when the adapter was trained.
    ///   - embeddings: the same for its embeddings.
    /// - Throws: ``PEFTError``, which says where the name comes from, if the model does not exist.
    func folder(_ options: ModelOptions, weights storage: WeightStorage? = nil, embeddings: WeightStorage? = nil)
        throws
        -> ModelFolder
    {
        let name = try name(options)
        do {
            return try options.folder(default: name, weights: storage, embeddings: embeddings)
        } catch let error as PEFTError where options.model == nil {
            throw PEFTError(
                "can't load the base model '\(name)' named in \(adapter)/adapter_config.json: \(error.problem)",
                remedy: "give --model" + (error.remedy.map { "; \($0)" } ?? ""))
        }
    }

    /// The folder of the adapter's tokenizer: its own if it has one, as trainers often save, else the base's.
    static func tokenizerFolder(_ adapter: URL, base: ModelFolder) throws -> URL {
        try AdapterFiles.hasTokenizer(adapter) ? adapter : base.url
    }
}
