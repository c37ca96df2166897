import PEFTSupport
import Torch
import TorchNN

/// Weight format of a model's input embeddings and output layer in memory.
package struct VocabularyStorage: Sendable, Equatable {
    /// The requested format; `nil` for the default.
    package let kind: WeightStorage?
    /// Whether 16-bit values stay as stored by default.
    package let keepsStored: Bool

    /// - Parameter keepsStored: whether the model's projections are quantized, so that memory matters.
    package init(_ kind: WeightStorage?, keepsStored: Bool) { (self.kind, self.keepsStored) = (kind, keepsStored) }

    /// A vocabulary matrix `[words, size]` in its format; `nil` for a dense weight in the compute dtype.
    ///
    /// - Parameters:
    ///   - stored: the values in the file.
    ///   - dtype: compute dtype.
    func converted(_ stored: Tensor, dtype: DType) -> (any LinearWeight)? {
        guard let kind else {
            return keepsStored && dtype == .float32 && stored.dtype.size == 2 ? NarrowWeight(stored) : nil
        }
        return kind.format.conversion?.vocabulary(stored, dtype)
    }

    /// Installs empty vocabulary matrices in a meta model.
    ///
    /// - Parameter stored: dtype of a tensor in the file, by the model's name; `nil` if unknown.
    package func apply(to outline: any LanguageModel, stored: (String) -> DType?) {
        for place in outline.vocabularyPlaces where place.weight.precision == .full {
            let type = stored(place.path + ".weight") ?? .float32
            let shape = Tensor.empty([place.weight.outputs, place.weight.inputs], dtype: type, device: .meta)
            if let weight = converted(shape, dtype: .float32) { place.weight = weight }
        }
    }
}

extension DType {
    /// Reads the default from a configuration's stored dtype.
    package init?(configuration: JSON) {
        guard let name = (configuration["dtype"] ?? configuration["torch_dtype"])?.string else { return nil }
        self.init(rawValue: name)
    }
}

/// The input embeddings, or the untied output layer.
struct VocabularyPlace {
    let path: String
    fileprivate let module: Module

    var weight: any LinearWeight {
        get { (module as? Embedding)?.weight ?? (module as? Linear)?.weight ?? DenseWeight(.empty([0, 0])) }
        nonmutating set {
            (module as? Embedding)?.weight = newValue
            (module as? Linear)?.weight = newValue
        }
    }

    /// Sets the dtype to which a quantized embedding is dequantized.
    func computes(in type: DType) { (module as? Embedding)?.type = type }
}

extension LanguageModel {
    /// Classification heads and other untrained modules aren't included.
    var vocabularyPlaces: [VocabularyPlace] {
        namedModules().filter { path, module in
            module is Embedding && path == inputEmbedding
                || module is Linear && path == outputLayer && !newModules.contains(path)
        }.map { VocabularyPlace(path: $0.path, module: $0.module) }
    }

    /// Dequantizes or upcasts the embedding and the output layer to fp32.
    package func upcastVocabulary() {
        for place in vocabularyPlaces where place.weight.precision != .full && place.weight.grouped == nil {
            place.weight = DenseWeight(place.weight.dense(as: .float32))
        }
    }

    /// - Throws: ``PEFTError`` if the embedding has a format that Hugging Face's files don't support.
    package func checkVocabularyIsWritable() throws {
        guard let place = vocabularyPlaces.first, place.weight.isQuantized else { return }
        throw PEFTError(
            "'\(place.path)' is quantized, which a model folder can't store",
            remedy: "load it as fp32 or bf16 (--embedding-weights)")
    }
}
