import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// The vocabulary matrices of a base that was enlarged for new tokens. An adapter's file contains them, as its readers
/// have the original base.
package struct EnlargedVocabulary {
    private let table: Tensor
    /// The output layer's matrix, unless it is tied.
    private let output: Tensor?

    /// - Parameter model: the enlarged base, before an adapter is attached; without input embeddings the result is `nil`.
    package init?(of model: any LanguageModel) {
        func values(_ weight: any LinearWeight) -> Tensor {
            weight.denseTensor?.detached() ?? weight.dense(as: .float32)
        }
        guard let table = model.vocabularyTable else { return nil }
        self.table = values(table.weight)
        output = model.ownOutputLayer.map { values($0.weight) }
    }

    /// The matrices under the names that Hugging Face PEFT gives them beside an active adapter.
    func tensors(for adapter: Adapter) -> [String: Tensor] {
        let model = adapter.model
        var result = [Self.key(model.inputEmbedding, adapter): table]
        // An adapter may untie the output layer.
        if model.ownOutputLayer != nil { result[Self.key(model.outputLayer, adapter)] = output ?? table }
        return result
    }

    private static func key(_ path: String, _ adapter: Adapter) -> String {
        let module = adapter.attached.first { $0.path == path }?.adapter
        let level =
            if adapter.trained.contains(where: { $0.path == path + ".weight" }) {
                "original_module."
            } else if module?.storedTensors().keys.contains(where: { $0.hasPrefix("token_adapter.") }) == true {
                "token_adapter.base_layer."
            } else {
                module == nil ? "" : "base_layer."
            }
        return "\(adapter.wrapsModules ? AdapterKeys.prefix : "base_model.")\(path).\(level)weight"
    }
}

extension MethodChoice {
    /// The same choice that also trains the vectors of new tokens, in the input embeddings and in an output layer of its
    /// own, unless the method trains these already.
    /// - Returns: the choice, and whether it trains the new tokens.
    /// - Throws: ``PEFTError`` if the method doesn't fit the model.
    package func training(newTokens ids: [Int], of outline: ModelOutline) throws -> (
        choice: MethodChoice, trainsThem: Bool
    ) {
        let hasOutput = !outline.isTied && outline.linears.contains { $0.path == outline.outputLayer }
        let all = [outline.inputEmbedding] + (hasOutput ? [outline.outputLayer] : [])
        let (list, fields) = (JSON.array(ids.map { .integer($0) }), configuration.json)
        func leaf(_ path: String) -> String { path.split(separator: ".").last.map(String.init) ?? path }
        var choice = self
        if fields["token_indices"] == [] {
            try choice.set(key: "token_indices", to: list)
            if hasOutput, fields["target_modules"] == .null {
                try choice.set(key: "target_modules", to: .array(all.map { .string(leaf($0)) }))
            }
            return (choice, true)
        }
        let trained = Set(
            try plan(for: outline).map { $0.site == .parameter ? String($0.path.dropLast(7)) : $0.path })
        let others = all.filter { !trained.contains($0) }
        guard !others.isEmpty else { return (self, true) }
        guard fields["trainable_token_indices"] == .null, !separatesOutputLayer(of: outline) else {
            return (self, false)
        }
        try choice.set(
            key: "trainable_token_indices",
            to: others == all && !hasOutput
                ? list : .object(Dictionary(others.map { (leaf($0), list) }, uniquingKeysWith: { first, _ in first }))
        )
        return (choice, true)
    }
}
