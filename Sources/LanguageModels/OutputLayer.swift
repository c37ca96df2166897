import Support
import Torch
import TorchNN

/// A family whose output layer may be the matrix of its input embeddings.
protocol TiedOutputModel: LanguageModel {
    /// The output layer; `nil` while the table of input embeddings is.
    var outputProjection: Linear? { get set }
}

extension LanguageModel {
    /// The table of input embeddings.
    public var vocabularyTable: Embedding? {
        namedModules().first { $0.path == inputEmbedding }?.module as? Embedding
    }

    /// The output layer where it is a matrix of its own, and no classifier.
    public var ownOutputLayer: Linear? { (self as? any TiedOutputModel)?.outputProjection }

    /// Whether the table of input embeddings is the output layer too.
    public var hasTiedOutput: Bool { (self as? any TiedOutputModel).map { $0.outputProjection == nil } ?? false }

    /// Gives a model whose output layer is tied one of its own, or with `nil` ties it again.
    public func setOutputLayer(_ layer: Linear?) { (self as? any TiedOutputModel)?.outputProjection = layer }

    /// `config.json` as it is to say what the matrices are now: their rows, and whether there are two of them.
    func describingVocabulary(_ fields: [String: JSON]) -> [String: JSON] {
        var fields = fields
        if let table = vocabularyTable, fields["vocab_size"]?.int != table.entries, fields["vocab_size"] != nil {
            fields["vocab_size"] = .integer(table.entries)
        }
        let wasTied = !aliases.filter { $0.key == outputLayer + ".weight" }.isEmpty
        if wasTied, ownOutputLayer != nil {
            // A tied T5 scales what its output layer reads, which it goes on to do.
            if let model = self as? T5 { fields["scale_decoder_outputs"] = .bool(model.settings.scalesOutput) }
            fields["tie_word_embeddings"] = false
        }
        return fields
    }
}
