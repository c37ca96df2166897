import PEFTSupport
import Torch

/// What GGUF files have of a family.
enum GGUFSupport: Sendable {
    /// The family is neither read nor written.
    case none
    case architecture(GGUFArchitecture)
    /// Its models are written as another family's, and read as such.
    case writtenAs(GGUFArchitecture)

    /// The architecture that models are written as.
    var written: GGUFArchitecture? {
        switch self {
        case .none: nil
        case .architecture(let architecture), .writtenAs(let architecture): architecture
        }
    }

    /// The architecture that is read as this family.
    var read: GGUFArchitecture? {
        if case .architecture(let architecture) = self { architecture } else { nil }
    }
}

/// llama.cpp's form of a family.
struct GGUFArchitecture: Sendable {
    /// `general.architecture`.
    let name: String
    /// The class name in transformers.
    let modelClass: String
    let tensors: GGUFTensorNames
    /// Whether the rows of q and k are ordered for interleaved RoPE, with the two dimensions of a pair adjacent
    /// instead of half a head apart.
    let pairsNeighbors: Bool
    /// Whether norms are stored as 1 + w.
    let addsOneToNorms: Bool
    /// Whether llama.cpp reads `rope_freqs.weight` for this family.
    var hasRotaryFactors = true
    /// Whether RoPE may leave the end of each head as it is.
    var rotatesParts = false
    /// Keys of the norms' epsilon: in the file's metadata and in `config.json`.
    var epsilon = (file: "attention.layer_norm_rms_epsilon", model: "rms_norm_eps")
    /// The experts of each layer; `nil` for a dense family.
    var experts: GGUFExperts?
    /// Adds the metadata of what only this family has.
    /// - Throws: ``PEFTError`` for a model that llama.cpp would compute differently.
    var details: @Sendable (LlamaConfiguration, inout GGUFDescription) throws -> Void = { _, _ in }
    /// Keys of `config.json` that only this family has, from the file's metadata.
    let configuration: @Sendable (GGUFSettings, GGUFSizes) throws -> [String: JSON]

    /// Number of heads in a q or k tensor whose rows are reordered; `nil` for other tensors.
    func reorderedHeads(_ path: String, heads: Int, keyHeads: Int) -> Int? {
        guard pairsNeighbors, let leaf = path.split(separator: ".").dropLast().last else { return nil }
        return leaf == "q_proj" ? heads : leaf == "k_proj" ? keyHeads : nil
    }

    /// The stored row of each row of a model's q or k: the model's rows 0 … d/2 − 1 of a head of size d are the even
    /// ones.
    static func storedRows(_ rows: Int, heads: Int) -> [Int] {
        let size = rows / heads
        return (0..<rows).map { row in
            let (head, own) = (row / size, row % size)
            return head * size + (own < size / 2 ? 2 * own : 2 * (own - size / 2) + 1)
        }
    }
}

/// Sizes of a model in a GGUF file's metadata.
struct GGUFSizes: Sendable {
    let layers: Int
    let hiddenSize: Int
    let feedForwardSize: Int
    let heads: Int
    /// Number of key-value heads.
    let keyHeads: Int
    let headSize: Int
    /// Epsilon of the RMS norms.
    let epsilon: Double
}

/// The file's and the model's names of a family's tensors, without `.weight` and `.bias`.
struct GGUFTensorNames: Sendable {
    /// Outside of the layers.
    let outer: [(file: String, model: String)]
    /// Below `blk.N` and below `model.layers.N`.
    let inner: [(file: String, model: String)]
    /// The file's names below `blk.N` of the projections whose biases llama.cpp reads; `nil` for all.
    var biases: Set<String>?

    private static let (fileLayers, modelLayers) = ("blk.", "model.layers.")

    /// The model's path of a tensor of the file; `nil` if the family has none.
    func path(of tensor: String) -> String? {
        Self.translate(tensor, layers: Self.fileLayers, to: Self.modelLayers, outer, inner) { file, _ in
            has(biasOf: file)
        }
    }

    /// The file's name of a model's tensor; `nil` if it has none.
    func tensor(of path: String) -> String? {
        Self.translate(
            path, layers: Self.modelLayers, to: Self.fileLayers, outer.map { ($0.model, $0.file) },
            inner.map { ($0.model, $0.file) }
        ) { _, file in has(biasOf: file) }
    }

    private func has(biasOf file: String) -> Bool { biases?.contains(file) ?? true }

    private static func translate(
        _ name: String, layers: String, to newLayers: String, _ outer: [(String, String)],
        _ inner: [(String, String)], hasBias: (String, String) -> Bool
    ) -> String? {
        guard let dot = name.lastIndex(of: ".") else { return nil }
        let (stem, kind) = (String(name[..<dot]), String(name[dot...]))
        guard kind == ".weight" || kind == ".bias" else { return nil }
        if let match = outer.first(where: { $0.0 == stem }) { return match.1 + kind }
        guard stem.hasPrefix(layers) else { return nil }
        let rest = stem.dropFirst(layers.count)
        guard let end = rest.firstIndex(of: "."), let layer = Int(rest[..<end]), layer >= 0,
            let match = inner.first(where: { $0.0 == rest[rest.index(after: end)...] }),
            kind == ".weight" || hasBias(match.0, match.1)
        else { return nil }
        return "\(newLayers)\(layer).\(match.1)\(kind)"
    }
}
