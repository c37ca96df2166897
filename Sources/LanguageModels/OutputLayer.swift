import PEFTSupport
import Torch
import TorchNN

/// A family whose output layer may be tied to its input embeddings.
protocol TiedOutputModel: LanguageModel {
    /// The untied output layer; `nil` if it is tied to the input embeddings.
    var outputProjection: Linear? { get set }
    /// Keys of `config.json` without which a model that was tied would compute differently once it is untied, here or in
    /// transformers.
    var untyingKeys: [String: JSON] { get }
}

extension TiedOutputModel {
    var untyingKeys: [String: JSON] { [:] }
}

extension TiedOutputModel {
    /// The module that has the output layer's matrix.
    func outputMatrix(_ table: Embedding) -> Module { outputProjection ?? table.table ?? table }
}

extension LanguageModel {
    /// The input embeddings.
    package var vocabularyTable: Embedding? {
        namedModules().first { $0.path == inputEmbedding }?.module as? Embedding
    }

    /// The output layer if it is untied and not a classification head.
    package var ownOutputLayer: Linear? { (self as? any TiedOutputModel)?.outputProjection }

    /// Whether the output layer is tied to the input embeddings.
    package var hasTiedOutput: Bool { (self as? any TiedOutputModel).map { $0.outputProjection == nil } ?? false }

    /// Unties the output layer, or with `nil` ties it again.
    package func setOutputLayer(_ layer: Linear?) { (self as? any TiedOutputModel)?.outputProjection = layer }

    /// Updates `config.json` to the current vocabulary matrices: their rows, and whether they are tied.
    func describingVocabulary(_ fields: [String: JSON]) -> [String: JSON] {
        var fields = fields
        if let table = vocabularyTable { fields = fields.with(vocabularySize: table.entries) }
        if let table = vocabularyTable, let text = fields["text_config"]?.object,
            modelFamily.modules.isPartOfMultimodal
        {
            fields["text_config"] = .object(text.with(vocabularySize: table.entries))
        }
        let wasTied = !aliases.filter { $0.key == outputLayer + ".weight" }.isEmpty
        if wasTied, ownOutputLayer != nil {
            fields = fields.with(tied: false, of: modelFamily)
            if let model = self as? any TiedOutputModel { fields.merge(model.untyingKeys) { $1 } }
        }
        return fields
    }
}

extension [String: JSON] {
    fileprivate func with(vocabularySize: Int) -> [String: JSON] {
        guard let old = self["vocab_size"], old.int != vocabularySize else { return self }
        return merging(["vocab_size": .integer(vocabularySize)]) { $1 }
    }

    /// A `config.json` whose output layer is tied to the embedding or not. In a multimodal model transformers reads
    /// the key in `text_config` too, which is not added if the file says the same without it.
    func with(tied: Bool, of family: ModelFamily) -> [String: JSON] {
        var fields = self
        fields["tie_word_embeddings"] = .bool(tied)
        if family.modules.isPartOfMultimodal, var text = fields["text_config"]?.object,
            text["tie_word_embeddings"] != nil || self["tie_word_embeddings"] != .bool(tied)
        {
            text["tie_word_embeddings"] = .bool(tied)
            fields["text_config"] = .object(text)
        }
        return fields
    }
}
