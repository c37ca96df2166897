import Support
import Torch
import TorchNN

/// How a model's table of input embeddings and its output layer are kept in memory: the matrices with a row for each word.
public struct VocabularyStorage: Sendable, Equatable {
    /// What was asked for.
    public let kind: WeightStorage?
    /// Whether numbers of 16 bits stay as they are stored where nothing was asked for.
    public let keepsStored: Bool

    /// - Parameter keepsStored: whether the model's projections are kept in fewer bits, so that memory counts.
    public init(_ kind: WeightStorage?, keepsStored: Bool) { (self.kind, self.keepsStored) = (kind, keepsStored) }

    /// A matrix [words, size] as it is to be kept; `nil` for numbers of the type that is computed in.
    ///
    /// - Parameters:
    ///   - stored: the numbers as the file has them.
    ///   - dtype: what is computed in.
    func kept(_ stored: Tensor, dtype: DType) -> (any LinearWeight)? {
        switch kind {
        case nil: keepsStored && dtype == .float32 && stored.dtype.size == 2 ? NarrowWeight(stored) : nil
        case .float32: nil
        case .bfloat16: dtype.size > 2 ? NarrowWeight(stored.to(.bfloat16)) : nil
        case .int8: RowQuantizedWeight(rounding: stored)
        case .blocks(let settings): BlockQuantizedWeight(rounding: stored, to: settings)
        }
    }

    /// Puts the shapes of such matrices into a model without weights.
    ///
    /// - Parameter stored: the type that the file has a tensor in, by the model's name; `nil` if nothing says.
    public func apply(to outline: any LanguageModel, stored: (String) -> DType?) {
        for place in outline.vocabularyPlaces where place.weight is DenseWeight {
            let type = stored(place.path + ".weight") ?? .float32
            let shape = Tensor.empty([place.weight.outputs, place.weight.inputs], dtype: type, device: .meta)
            if let weight = kept(shape, dtype: .float32) { place.weight = weight }
        }
    }
}

extension DType {
    /// What `config.json` says that weights are stored in.
    public init?(configuration: JSON) {
        guard let name = (configuration["dtype"] ?? configuration["torch_dtype"])?.string else { return nil }
        self.init(rawValue: name)
    }
}

/// The table of input embeddings, or the output layer where it is a matrix of its own.
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

    /// Makes vectors of a table in fewer bits numbers of this type.
    func computes(in type: DType) { (module as? Embedding)?.type = type }
}

extension LanguageModel {
    /// Classifiers and other new modules aren't among them.
    var vocabularyPlaces: [VocabularyPlace] {
        namedModules().filter { path, module in
            module is Embedding && path == inputEmbedding
                || module is Linear && path == outputLayer && !newModules.contains(path)
        }.map { VocabularyPlace(path: $0.path, module: $0.module) }
    }

    /// Makes fp32 numbers of an embedding table and an output layer that are kept in fewer bits.
    public func widenVocabulary() {
        for place in vocabularyPlaces
        where place.weight is BlockQuantizedWeight || place.weight is RowQuantizedWeight
            || place.weight is NarrowWeight
        {
            place.weight = DenseWeight(place.weight.dense(as: .float32))
        }
    }

    /// - Throws: ``PEFTError`` where the embedding table is kept in a form that Hugging Face's files don't have.
    public func checkVocabularyIsWritable() throws {
        guard let place = vocabularyPlaces.first, place.weight.isQuantized else { return }
        throw PEFTError(
            "'\(place.path)' is quantized, which a model folder can't store",
            remedy: "load it as fp32 or bf16 (--embedding-weights)")
    }
}
