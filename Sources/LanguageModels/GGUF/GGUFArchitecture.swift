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
    /// The names in a file, if they depend on its other tensors.
    var fileTensors: (@Sendable (GGUFSettings) -> GGUFTensorNames)?
    /// Whether the rows of q and k are ordered for interleaved RoPE, with the two dimensions of a pair adjacent
    /// instead of half a head apart.
    let pairsNeighbors: Bool
    /// Name of a fused projection of queries, keys and values, whose rows the file has in another order
    /// (``GGUFRowOrder/fused(heads:keyHeads:)``).
    var fusedProjection: String?
    /// Whether norms are stored as 1 + w.
    let addsOneToNorms: Bool
    /// Whether queries and keys are rotated.
    var hasRotary = true
    /// How llama.cpp scales positions by YaRN.
    var yarn = GGUFYaRN()
    /// Whether llama.cpp reads `rope_freqs.weight` for this family.
    var hasRotaryFactors = true
    /// Whether RoPE may leave the end of each head as it is.
    var rotatesParts = false
    /// Keys of the norms' epsilon: in the file's metadata and in `config.json`.
    var epsilon = (file: "attention.layer_norm_rms_epsilon", model: "rms_norm_eps")
    /// What llama.cpp computes of a family of ``LayerNormDecoder``; `nil` for other families.
    var decoder: GGUFDecoderForm?
    /// All layers but every one of this number have sliding windows; `nil` for a family without windows.
    var windowPeriod: Int?
    /// Whether layers may have states in place of keys and values.
    var isHybrid = false
    /// Whether attention is latent, with sizes under other keys.
    var isLatent = false
    /// The experts of each layer; `nil` for a dense family.
    var experts: GGUFExperts?
    /// Whether models may have none.
    var mayLackExperts = false
    /// Tensors that have another form in the file.
    var forms: [GGUFForm] = []
    /// Whether a file with this name, and with experts or without, is of this family.
    var isFamily: @Sendable (GGUFSettings) -> Bool = { _ in true }
    /// Changes the keys of RoPE that most families have in `config.json`.
    var rotary: @Sendable (GGUFSettings, inout [String: JSON]) throws -> Void = { _, _ in }
    /// Adds the metadata of what only this family has.
    /// - Throws: ``PEFTError`` for a model that llama.cpp would compute differently.
    var details: @Sendable (LlamaConfiguration, inout GGUFDescription) throws -> Void = { _, _ in }
    /// Keys of `config.json` that only this family has, from the file's metadata.
    let configuration: @Sendable (GGUFSettings, GGUFSizes) throws -> [String: JSON]

    /// The order of the rows of a model's tensor; `nil` if the file has the same.
    func rowOrder(of path: String, heads: Int, keyHeads: Int) -> GGUFRowOrder? {
        guard let leaf = path.split(separator: ".").dropLast().last else { return nil }
        if let fusedProjection { return leaf == fusedProjection ? .fused(heads: heads, keyHeads: keyHeads) : nil }
        guard pairsNeighbors else { return nil }
        return leaf == "q_proj" ? .pairs(heads: heads) : leaf == "k_proj" ? .pairs(heads: keyHeads) : nil
    }
}

/// How the rows of a projection are ordered in a file, if not as in the model.
enum GGUFRowOrder {
    /// The model's rows 0 … d/2 − 1 of a head of size d are the even ones.
    case pairs(heads: Int)
    /// All queries, all keys, all values. The model has the queries of the first key head, that key, its value, the queries
    /// of the second key head, and so on.
    case fused(heads: Int, keyHeads: Int)

    /// The number of rows is a multiple of this one.
    var unit: Int {
        switch self {
        case .pairs(let heads): 2 * heads
        case .fused(let heads, let keyHeads): heads + 2 * keyHeads
        }
    }

    /// The stored row of each row of the model.
    func storedRows(_ rows: Int) -> [Int] {
        switch self {
        case .pairs(let heads):
            let size = rows / heads
            return (0..<rows).map { row in
                let (head, own) = (row / size, row % size)
                return head * size + (own < size / 2 ? 2 * own : 2 * (own - size / 2) + 1)
            }
        case .fused(let heads, let keyHeads):
            let (size, queries) = (rows / unit, heads / keyHeads)
            return (0..<rows).map { row in
                let (group, part) = (row / size / (queries + 2), row / size % (queries + 2))
                let head =
                    part < queries
                    ? group * queries + part : heads + (part == queries ? 0 : keyHeads) + group
                return head * size + row % size
            }
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
    /// Epsilon of the norms.
    let epsilon: Double
    /// Sizes of a head's keys without RoPE and of its values in latent attention.
    var latent: (plain: Int, value: Int)?
    /// Whether each layer has a state in place of keys and values; `nil` in families without such layers.
    var isRecurrent: [Bool]?
    /// Number of groups of a state space's values that are normalized together.
    var stateGroups = 1
    var hasExperts = false

    /// The part of a head that RoPE rotates, so that the head's size times it is rounded down to the rotated dimensions.
    static func share(_ rotated: Int, of size: Int) -> Double {
        let share = Double(rotated) / Double(size)
        return Int(share * Double(size)) < rotated ? share.nextUp : share
    }
}

/// The file's and the model's names of a family's tensors, without `.weight` and `.bias`.
struct GGUFTensorNames: Sendable {
    /// Outside of the layers.
    let outer: [(file: String, model: String)]
    /// Below `blk.N` and below a layer of the model.
    let inner: [(file: String, model: String)]
    /// The file's names below `blk.N` of the projections whose biases llama.cpp reads; `nil` for all.
    var biases: Set<String>?
    /// Path of the model's layers.
    var layers = "model.layers."
    /// The file's matrices below `blk.N` whose rows are vectors of the model, and the path of these below a layer.
    var stacks: [(file: String, model: String)] = []

    private static let fileLayers = "blk."

    /// The model's path of a tensor of the file; `nil` if the family has none.
    func path(of tensor: String) -> String? {
        Self.translate(tensor, layers: Self.fileLayers, to: layers, outer, inner) { file, _ in
            has(biasOf: file)
        }
    }

    /// The file's name of a model's tensor; `nil` if it has none.
    func tensor(of path: String) -> String? {
        Self.translate(
            path, layers: layers, to: Self.fileLayers, outer.map { ($0.model, $0.file) },
            inner.map { ($0.model, $0.file) }
        ) { _, file in has(biasOf: file) }
    }

    /// The file's matrix that has a model's vector as a row, and the index of that row; `nil` for other tensors.
    func stack(of path: String) -> (tensor: String, row: Int)? {
        let words = path.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard !stacks.isEmpty, words.last == "weight", words.count > 2, let row = Int(words[words.count - 2]),
            let tensor = Self.translate(
                words.dropLast(2).joined(separator: ".") + ".weight", layers: layers, to: Self.fileLayers, [],
                stacks.map { ($0.model, $0.file) }, hasBias: { _, _ in false })
        else { return nil }
        return (tensor, row)
    }

    /// The path of the vectors that are the rows of a file's matrix; `nil` for other tensors.
    func rows(of tensor: String) -> String? {
        Self.translate(tensor, layers: Self.fileLayers, to: layers, [], stacks, hasBias: { _, _ in false })
            .map { String($0.dropLast(".weight".count)) }
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
