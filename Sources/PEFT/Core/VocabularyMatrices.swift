import LanguageModels
import Support
import Torch
import TorchNN

/// The matrices with a row for each token that an adapter puts in place of its base's while it is active: those that its
/// file holds (a vocabulary that was resized, embeddings stored beside the adapter), and an output layer apart from the
/// table that it is tied to. Taken off again, the model is as it was.
final class VocabularyMatrices {
    private let model: any LanguageModel
    /// What the file holds, by its names, to be written again.
    let stored: [String: Tensor]
    /// In place of the table of input embeddings.
    private let table: (any LinearWeight)?
    /// In place of the output layer's matrix.
    private let output: (any LinearWeight)?
    private var separates: Bool
    /// The output layer that the model gets where its own is the table.
    private var layer: Linear?
    private var before: (table: (any LinearWeight)?, output: (any LinearWeight)?)?

    /// Whether other numbers take the place of the base's.
    var replacesNumbers: Bool { table != nil || output != nil }

    /// - Parameters:
    ///   - table: a matrix [tokens, size] in place of the table of input embeddings.
    ///   - output: the same for the output layer; of a model that has these tied it makes two.
    init(
        on model: any LanguageModel, table: (any LinearWeight)? = nil, output: (any LinearWeight)? = nil,
        stored: [String: Tensor] = [:]
    ) {
        (self.model, self.table, self.output, self.stored) = (model, table, output, stored)
        separates = output != nil && model.hasTiedOutput
    }

    /// Gives the model an output layer apart from its table.
    func separateOutput() {
        separates = true
        if before != nil { putLayer() }
    }

    /// Puts the matrices in place.
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
        if layer == nil { layer = Linear(output ?? Self.sharing(site.weight), bias: nil) }
        model.setOutputLayer(layer)
    }

    /// Gives the model its own matrices back.
    func remove() {
        guard let before else { return }
        self.before = nil
        if table != nil, let weight = before.table { model.vocabularyTable?.weight = weight }
        if let layer {
            // Where another adapter went on over this layer, it stays: it computes what the table does.
            let isUsed = !layer.attached.isEmpty || layer.weight.parameters.contains { $0.parameter.isCovered }
            if model.ownOutputLayer === layer, !isUsed { model.setOutputLayer(nil) }
        } else if output != nil, let weight = before.output {
            model.ownOutputLayer?.weight = weight
        }
    }

    /// The same numbers as a weight of its own, which may be replaced or trained apart.
    private static func sharing(_ weight: any LinearWeight) -> any LinearWeight {
        switch weight {
        case let weight as DenseWeight: DenseWeight(weight.parameter.tensor)
        case let weight as NarrowWeight: NarrowWeight(weight.parameter.tensor)
        default: weight
        }
    }
}
