import PEFTSupport

/// A family of models: its `model_type`, how its models are made from `config.json`, and what adapters, weight files
/// and tokenization need to know about it.
///
/// A family declares one of these in its file in `Models/` and is listed in ``ModelRegistry``. No property has a
/// default, so a question that a family doesn't answer is a compile error; one that doesn't apply to it is answered
/// with `none`, `nil` or an empty list.
public struct ModelFamily: Sendable {
    /// `model_type` in `config.json`.
    package let name: String
    let constructor: ModelConstructor
    package let modules: ModuleNames
    package let tokenTypes: TokenTypes
    package let adapterTargets: AdapterTargets
    let gguf: GGUFSupport
}

/// How a family's models are made, on the meta device.
enum ModelConstructor: Sendable {
    /// A model that generates text, from `config.json`.
    case generator(@Sendable (JSON, ModelFamily) throws -> any LanguageModel)
    /// An encoder with a head for its task.
    case encoder(@Sendable (JSON, ModelFamily, ModelHead) throws -> any LanguageModel)
}

/// Names of a family's modules in the checkpoint.
package struct ModuleNames: Sendable {
    /// The first component of all paths of the model without its head, which files of a headless model lack
    /// (`base_model_prefix` of transformers); empty if there is none.
    package let prefix: String
    /// Path of the input embeddings, after the prefix.
    package let embedding: String
    package let output: OutputName
    /// Path components of attention sublayers.
    package let attention: Set<String>
    /// Path components of feed-forward sublayers, and of other projections that are counted with them.
    package let feedForward: Set<String>
    /// Last path components of projections that are never quantized.
    let unquantized: Set<String>
    /// Prefixes that names have in older files, and the model's prefixes in their place; the first that fits counts.
    var olderPrefixes: [(old: String, new: String)] = []
    /// Prefixes of the other parts of a multimodal model, whose text part alone is computed with; empty for a text
    /// model. Such a model's `config.json` has the text part's keys in `text_config`.
    var otherParts: [String] = []

    /// How files store the experts of a layer; `nil` for a dense family.
    var experts: ExpertNames?

    /// Names of an expert's projections in adapters for transformers before version 5, and the tensors of all experts that
    /// Hugging Face PEFT adapts in their place; `nil` if it doesn't rename them.
    package var expertTargets: [(old: String, new: String)]? {
        guard let experts, experts.renamesTargets, let separate = experts.separate, let gate = separate.gate else {
            return nil
        }
        return [
            ("gate", "gate.weight"), (gate, "gate_up_proj"), (separate.up, "gate_up_proj"),
            (separate.down, "down_proj"),
        ]
    }

    /// Whether the projection at a path chooses experts.
    package func isRouter(_ path: String) -> Bool {
        experts != nil && path.split(separator: ".").last.map { $0 == "gate" || $0 == "router" } ?? false
    }

    /// Whether the model is the text part of a multimodal one.
    var isPartOfMultimodal: Bool { !otherParts.isEmpty }

    /// Path of the input embeddings in a complete model.
    var inputEmbedding: String { prefix.isEmpty ? embedding : "\(prefix).\(embedding)" }

    /// The model's path of a file's tensor: files of a headless model lack the prefix.
    func canonical(_ name: String) -> String {
        var name = name
        if let older = olderPrefixes.first(where: { name.hasPrefix($0.old) && !name.hasPrefix($0.new) }) {
            name = older.new + name.dropFirst(older.old.count)
        }
        guard !prefix.isEmpty, !name.hasPrefix(prefix + "."), !output.contains(name), !isOther(name) else {
            return name
        }
        return "\(prefix).\(name)"
    }

    /// Whether a tensor, by the model's naming, belongs to another part of a multimodal model.
    private func isOther(_ name: String) -> Bool { otherParts.contains { name.hasPrefix($0) } }

    /// The model's naming of a file's tensor of another part of a multimodal model; `nil` for other tensors.
    func otherPart(_ name: String) -> String? {
        let name = canonical(name)
        return isOther(name) ? name : nil
    }
}

/// Name of the projection onto the vocabulary.
package enum OutputName: Sendable {
    /// The family has a head for its task instead.
    case none
    /// `config.json` says whether it is tied to the input embeddings, unless the file has a matrix that differs.
    case projection(String)
    /// As `projection`, and it is also tied if the file has no such matrix.
    /// - Parameter scaleKey: the key of `config.json` that says whether its input is scaled, if the family has one; without
    ///   the key, it is scaled if `config.json` says that it is tied.
    case tiedIfMissing(String, scaleKey: String?)

    /// Path of the projection.
    var path: String? {
        switch self {
        case .none: nil
        case .projection(let path), .tiedIfMissing(let path, _): path
        }
    }

    var scaleKey: String? { if case .tiedIfMissing(_, let key) = self { key } else { nil } }

    /// Whether a tensor belongs to the projection.
    func contains(_ name: String) -> Bool { path.map { name.hasPrefix($0 + ".") } ?? false }
}

/// Token types (segments) that tell the texts of a pair apart.
package enum TokenTypes: Sendable {
    /// The family has none, or was trained with one type only.
    case none
    /// An embedding of as many types as a key of `config.json` says.
    case embedded(key: String, default: Int)

    /// Whether models with this `config.json` distinguish the texts of a pair.
    package func areSeveral(in configuration: JSON) -> Bool {
        switch self {
        case .none: false
        case .embedded(let key, let fallback): configuration[key]?.int ?? fallback > 1
        }
    }
}
