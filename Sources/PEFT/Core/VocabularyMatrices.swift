import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Vocabulary matrices that an active adapter puts in place of the base's: those that its file contains (a resized
/// vocabulary, or embeddings stored with the adapter), and an untied output layer. Deactivating the adapter restores
/// the base's.
final class VocabularyMatrices {
    private let model: any LanguageModel
    /// The file's tensors by name, to be stored again.
    let stored: [String: Tensor]
    /// Replaces the input embeddings.
    private let table: (any LinearWeight)?
    /// Replaces the output layer's matrix.
    private let output: (any LinearWeight)?
    private var separates: Bool
    /// The untied output layer, for a model whose output layer is tied.
    private var layer: Linear?
    private var before: (table: (any LinearWeight)?, output: (any LinearWeight)?)?

    /// Whether the base's values are replaced.
    var replacesNumbers: Bool { table != nil || output != nil }

    /// - Parameters:
    ///   - table: a matrix `[tokens, size]` that replaces the input embeddings.
    ///   - output: a matrix `[tokens, size]` that replaces, and unties, the output layer.
    init(
        on model: any LanguageModel, table: (any LinearWeight)? = nil, output: (any LinearWeight)? = nil,
        stored: [String: Tensor] = [:]
    ) {
        (self.model, self.table, self.output, self.stored) = (model, table, output, stored)
        separates = output != nil && model.hasTiedOutput
    }

    /// Unties the model's output layer.
    func separateOutput() {
        separates = true
        if before != nil { putLayer() }
    }

    /// Installs the matrices.
    func put() {
        guard before == nil else { return }
        let site = model.vocabularyTable
        before = (site?.weight, layer == nil ? model.ownOutputLayer?.weight : nil)
        if let table { site?.weight = table }
        if separates {
            putLayer()
        } else if let output {
            model.ownOutputLayer?.weight = output
        }
    }

    private func putLayer() {
        guard model.hasTiedOutput, let site = model.vocabularyTable else { return }
        if layer == nil { layer = Linear(output ?? site.weight.withOwnParameters(), bias: nil) }
        model.setOutputLayer(layer)
    }

    /// Restores the model's own matrices.
    func remove() {
        guard let before else { return }
        self.before = nil
        if table != nil, let weight = before.table { model.vocabularyTable?.weight = weight }
        if let layer {
            // If another adapter was attached to this layer since, keep it: its output is the embedding's.
            let isUsed = !layer.attached.isEmpty || layer.weight.parameters.contains { $0.parameter.isCovered }
            if model.ownOutputLayer === layer, !isUsed { model.setOutputLayer(nil) }
        } else if output != nil, let weight = before.output {
            model.ownOutputLayer?.weight = weight
        }
    }
}
