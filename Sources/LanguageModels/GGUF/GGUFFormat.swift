import Torch

/// A format of a whole GGUF file, llama.cpp's "file type": the type of most matrices, and which tensors get another.
package struct GGUFFormat: Sendable, Equatable {
    /// llama.cpp's name: `F16`, `Q4_0`, `Q4_K_M`.
    package let name: String
    /// The type of most matrices.
    package let type: GGUFType
    /// llama.cpp's number (`general.file_type`).
    package let number: Int
    /// The types of attention values and feed-forward outputs, which llama.cpp stores with more bits in some layers.
    private var finer: Finer?

    private struct Finer: Equatable {
        var type: GGUFType
        /// Of fused projections of queries, keys and values.
        var fused: GGUFType
        /// Whether only the first layers have it: four of attention, an eighth of feed-forward networks.
        var isFirstOnly: Bool
    }

    private init(_ type: GGUFType, _ number: Int, suffix: String = "", finer: Finer? = nil) {
        (name, self.type, self.number, self.finer) = (type.name + suffix, type, number, finer)
    }

    package static let f32 = GGUFFormat(.f32, 0)
    package static let f16 = GGUFFormat(.f16, 1)
    package static let bf16 = GGUFFormat(.bf16, 32)
    package static let q8_0 = GGUFFormat(.q8_0, 7)
    package static let q4_0 = GGUFFormat(.q4_0, 2)

    /// Name of the output layer's matrix, if it isn't the embedding's.
    static let outputTensor = "output.weight"

    /// All formats that can be written.
    package static let all: [GGUFFormat] = [
        f32, f16, bf16, q8_0,
        GGUFFormat(.q6_K, 18),
        GGUFFormat(
            .q5_K, 17, suffix: "_M", finer: Finer(type: .q6_K, fused: .q6_K, isFirstOnly: false)),
        GGUFFormat(.q5_K, 16, suffix: "_S"),
        GGUFFormat(.q5_1, 9), GGUFFormat(.q5_0, 8),
        GGUFFormat(
            .q4_K, 15, suffix: "_M", finer: Finer(type: .q6_K, fused: .q5_K, isFirstOnly: false)),
        GGUFFormat(.q4_K, 14, suffix: "_S", finer: Finer(type: .q5_K, fused: .q4_K, isFirstOnly: true)),
        GGUFFormat(.q4_1, 3), q4_0,
    ]

    /// What a tensor's type depends on, apart from its name and shape.
    struct Model {
        var layers: Int
        /// Number of experts per layer; 0 for a dense model.
        var experts: Int
        /// Whether the output layer has a matrix of its own.
        var hasOutput: Bool

        /// - Parameters:
        ///   - names: the names of all tensors in the file.
        ///   - experts: number of experts per layer; 0 for a dense model.
        init(names: [String], experts: Int) {
            layers = names.reduce(0) { max($0, (GGUFFormat.layer(of: $1)?.index ?? -1) + 1) }
            hasOutput = names.contains(GGUFFormat.outputTensor)
            self.experts = experts
        }
    }

    /// The layer of a tensor, and its name in it: 3 and `attn_v` of `blk.3.attn_v.weight`.
    private static func layer(of name: String) -> (index: Int, part: Substring)? {
        let words = name.split(separator: ".")
        guard words.count > 2, words[0] == "blk", let index = Int(words[1]) else { return nil }
        return (index, words[2])
    }

    /// The type of a tensor by its name in the file. Vectors are F32. Rows that aren't whole blocks get the nearest type that has
    /// smaller blocks, or F16.
    func type(of name: String, shape: [Int], in model: Model) -> GGUFType {
        guard shape.count > 1 else { return .f32 }
        guard type.plain == nil else { return type }
        let width = shape.last ?? 0
        var chosen = wanted(name, model)
        if !width.isMultiple(of: chosen.block) {
            switch chosen {
            case .q4_K: chosen = .q5_0
            case .q5_K: chosen = .q5_1
            case .q6_K: chosen = .q8_0
            default: break
            }
        }
        return width.isMultiple(of: chosen.block) ? chosen : .f16
    }

    /// The type of a matrix whose rows are whole blocks, as llama.cpp chooses it without an importance matrix.
    private func wanted(_ name: String, _ model: Model) -> GGUFType {
        let isOutput = name == (model.hasOutput ? Self.outputTensor : "token_embd.weight")
        guard type.block == 256 else {
            return isOutput || name == "token_embd.weight" ? .q8_0 : type
        }
        if isOutput { return .q6_K }
        guard let (layer, part) = Self.layer(of: name) else { return type }
        switch part {
        // Small matrices beside eight experts.
        case "attn_v" where model.experts == 8, "attn_k" where model.experts == 8: return .q8_0
        case "attn_output" where model.experts == 8 && type == .q4_K: return .q5_K
        case "attn_qkv": return finer?.fused ?? type
        case "attn_v":
            guard let finer else { return type }
            return (finer.isFirstOnly ? layer < 4 : Self.isFiner(layer, of: model.layers)) ? finer.type : type
        case "ffn_down", "ffn_down_exps":
            guard let finer else { return type }
            return (finer.isFirstOnly ? layer < model.layers / 8 : Self.isFiner(layer, of: model.layers))
                ? finer.type : type
        default: return type
        }
    }

    /// The first and last eighth of the layers, and every third between them.
    private static func isFiner(_ layer: Int, of layers: Int) -> Bool {
        let eighth = layers / 8
        return layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
    }
}
