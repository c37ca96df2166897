import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// How a configuration applies to a model whose output layer is tied to its input embeddings.
///
/// As in Hugging Face PEFT, each use of the matrix is adapted separately: LoRA over `lm_head` leaves the embedding
/// alone, and LoRA over `embed_tokens` the output layer. The adapter then unties the output layer, which shares the
/// weights, and a merged model has two matrices. `ensure_weight_tying` and trained tokens keep both uses tied.
extension MethodChoice {
    /// Hugging Face's name of the setting.
    static let tyingKey = "ensure_weight_tying"

    /// Whether the adapter unties the output layer from the embedding.
    func separatesOutputLayer(of outline: ModelOutline) -> Bool {
        guard outline.isTied, outline.architecture != .encoder else { return false }
        let json = configuration.json
        let (table, output) = (outline.inputEmbedding, outline.outputLayer)
        // Modules that look up in a view of the embedding leave the embedding itself alone.
        let hasViews = outline.embeddings.contains { $0.table == table && $0.path != table }
        // Layer restrictions apply to the stack only.
        let isRestricted = !(json["layers_to_transform"]?.array ?? []).isEmpty
        func isTarget(_ path: String) -> Bool {
            guard !isRestricted, !Self.names(json["exclude_modules"], path) else { return false }
            return json["target_modules"] != "all-linear" && Self.names(json["target_modules"], path)
        }
        let isTable = !hasViews && isTarget(table)
        if method.peftType == TrainableTokens.peftType { return isTarget(output) && !isTable }
        if case .object(let tables)? = json["trainable_token_indices"] {
            let ids = { (path: String) in
                tables.first { TargetSelection.names($0.key, path) }?.value.array?.compactMap(\.int)
            }
            if let own = ids(output), own != ids(table) { return true }
        }
        let saved = configuration.modulesToSave
        let (tiesSaved, tiesTargets) = Self.tying(json)
        if !tiesSaved, saved.covers(output) || !hasViews && saved.covers(table) { return true }
        guard !tiesTargets else { return false }
        return isTarget(output) || isTable && outline.embeddings.contains { $0.path == table }
    }

    /// Trained tokens of a tied embedding are rows of the output layer too, in Hugging Face PEFT even beneath an adapter
    /// over that layer alone.
    /// - Throws: ``PEFTError`` if the adapter has both.
    func checkTokens(of outline: ModelOutline) throws {
        let (json, table, output) = (configuration.json, outline.inputEmbedding, outline.outputLayer)
        let isTrained: Bool
        switch json["trainable_token_indices"] {
        case .array(let ids)?: isTrained = !ids.isEmpty
        case .object(let tables)?:
            isTrained =
                tables.keys.contains { TargetSelection.names($0, table) }
                && !tables.keys.contains { TargetSelection.names($0, output) }
        default: isTrained = false
        }
        guard isTrained else { return }
        throw PEFTError(
            "the trained tokens of '\(table)' are rows of the tied output layer '\(output)' too, which has an adapter of its own; "
                + "that is not supported",
            remedy: "remove '\(output)' from the targets and the modules to save, or train '\(table)' in full as well"
        )
    }

    /// What `ensure_weight_tying` keeps tied: modules to save, or else targets. Like Hugging Face PEFT, it recognizes
    /// embeddings by the names `embed_tokens` and `lm_head`, which a regular expression must match literally.
    static func tying(_ json: [String: JSON]) -> (saved: Bool, targets: Bool) {
        guard json[tyingKey] == true else { return (false, false) }
        let words = ["embed_tokens", "lm_head"]
        func isEmbedding(_ value: JSON?) -> Bool {
            if let list = value?.array?.compactMap(\.string) {
                return list.contains { name in words.contains { TargetSelection.names($0, name) } }
            }
            return words.contains { names(value, $0) }
        }
        let saved = isEmbedding(json["modules_to_save"])
        return (saved, !saved && isEmbedding(json["target_modules"]))
    }

    /// Whether a list of names, or a regular expression, selects the module at a path.
    private static func names(_ value: JSON?, _ path: String) -> Bool {
        if let pattern = value?.string {
            return (try? TargetSelection.wholeMatch(pattern, option: "targets").matches(path)) ?? false
        }
        return (value?.array ?? []).compactMap(\.string).contains { TargetSelection.names($0, path) }
    }
}

extension ModelOutline {
    /// The same model with the output layer untied from the embedding.
    var separatingOutputLayer: ModelOutline {
        guard isTied, let table = embeddings.first(where: { $0.path == inputEmbedding }) else { return self }
        var outline = self
        outline.linears.append(
            LinearSite(path: outputLayer, inputs: table.size, outputs: table.entries, hasBias: false))
        outline.parameters += parameters.filter { $0.owner == inputEmbedding }.map {
            ParameterSite(
                path: "\(outputLayer).\($0.leaf)", shape: $0.shape, component: .head, meaning: $0.meaning)
        }
        outline.frozen += frozen.filter { $0.path.hasPrefix(inputEmbedding + ".") }.map {
            FrozenTensor(
                path: outputLayer + $0.path.dropFirst(inputEmbedding.count), storage: $0.storage,
                takesCopies: $0.takesCopies)
        }
        outline.modules.append(outputLayer)
        return outline
    }
}
