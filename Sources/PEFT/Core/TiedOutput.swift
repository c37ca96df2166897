import LanguageModels
import Support
import Torch
import TorchNN

/// What a configuration means on a model whose output layer is the table of its input embeddings.
///
/// As in Hugging Face PEFT each use of the matrix is adapted apart: LoRA over `lm_head` leaves the table alone, LoRA over
/// `embed_tokens` the output layer. The adapter then gives the model an output layer of its own, over the same numbers, and
/// a merged model has two matrices. `ensure_weight_tying` and trained tokens keep the two uses one.
extension MethodChoice {
    /// Hugging Face's name of the switch.
    static let tyingKey = "ensure_weight_tying"

    /// Whether the adapter needs an output layer apart from the table that it is tied to.
    func separatesOutputLayer(of outline: ModelOutline) -> Bool {
        guard outline.isTied, outline.architecture != .encoder else { return false }
        let json = configuration.json
        let (table, output) = (outline.inputEmbedding, outline.outputLayer)
        // Parts of the model that look up in a view of the table leave the table itself alone.
        let hasViews = outline.embeddings.contains { $0.table == table && $0.path != table }
        func isTarget(_ path: String) -> Bool {
            if let pattern = json["target_modules"]?.string {
                guard pattern != "all-linear", let regex = try? TargetSelection.wholeMatch(pattern, option: "targets")
                else { return false }
                return TargetSelection.matches(regex, path)
            }
            return (json["target_modules"]?.array ?? []).compactMap(\.string).contains {
                TargetSelection.names($0, path)
            }
        }
        let isTable = !hasViews && isTarget(table)
        if method.peftType == TrainableTokens.peftType { return isTarget(output) && !isTable }
        if case .object(let tables)? = json["trainable_token_indices"] {
            let ids = { (path: String) in
                tables.first { TargetSelection.names($0.key, path) }?.value.array?.compactMap(\.int)
            }
            if let own = ids(output), own != ids(table) { return true }
        }
        guard json[Self.tyingKey] != true else { return false }
        let saved = configuration.modulesToSave
        if saved.covers(output) || !hasViews && saved.covers(table) { return true }
        return isTarget(output) || isTable && outline.embeddings.contains { $0.path == table }
    }
}

extension ModelOutline {
    /// The same model with an output layer apart from the table that it is tied to.
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
