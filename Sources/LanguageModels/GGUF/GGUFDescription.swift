import Foundation
import PEFTSupport
import Torch

/// A model that can be written as GGUF.
protocol GGUFWritable: LanguageModel {
    var ggufSizes: GGUFSizes { get }
    /// Adds the model's metadata.
    /// - Throws: ``PEFTError`` for a model that llama.cpp would compute differently, with the difference.
    func describe(in description: inout GGUFDescription) throws
}

/// A model's metadata in a GGUF file.
struct GGUFDescription {
    private let prefix: String
    private(set) var settings: [(String, GGUFValue)] = []
    /// RoPE scaling factors of each pair, if the metadata can't express them.
    private(set) var factors: [Float]?

    /// - Parameter architecture: llama.cpp's name of the family, which all keys begin with.
    init(architecture: String) { prefix = architecture + "." }

    func refusal(_ what: String) -> PEFTError {
        PEFTError("a GGUF file can't express that \(what)", remedy: "save the model as a folder")
    }

    mutating func add(_ key: String, _ value: GGUFValue) { settings.append((prefix + key, value)) }

    /// - Parameter rotated: the number of dimensions of each head that RoPE rotates; `nil` for all.
    mutating func addSizes(
        of model: any GGUFWritable, rotated: Int? = nil, epsilonKey: String = "attention.layer_norm_rms_epsilon"
    ) {
        let sizes = model.ggufSizes
        add("block_count", .integer(sizes.layers))
        add("context_length", .integer(model.configuration["max_position_embeddings"]?.int ?? 2048))
        add("embedding_length", .integer(sizes.hiddenSize))
        add("feed_forward_length", .integer(sizes.feedForwardSize))
        add("attention.head_count", .integer(sizes.heads))
        add("attention.head_count_kv", .integer(sizes.keyHeads))
        add("attention.key_length", .integer(sizes.headSize))
        add("attention.value_length", .integer(sizes.headSize))
        add(epsilonKey, .number(Float(sizes.epsilon)))
        add("rope.dimension_count", .integer(rotated ?? sizes.headSize))
        add("vocab_size", .integer(model.vocabularyTable?.entries ?? 0))
    }

    /// - Throws: ``PEFTError`` for a RoPE type that llama.cpp lacks.
    mutating func addRotary(_ rotary: RotaryPositions) throws {
        let own = rotary.settings
        add("rope.freq_base", .number(Float(own.base)))
        func addScaling(_ key: String, _ value: GGUFValue) {
            settings.append((prefix + "rope.scaling." + key, value))
        }
        let factor = own.parameters?["factor"]?.double ?? 1
        switch own.kind {
        case "default": break
        case "linear":
            addScaling("type", .string("linear"))
            addScaling("factor", .number(Float(factor)))
        case "yarn"
        where abs(rotary.attentionFactor - (0.1 * Foundation.log(max(1, factor)) + 1)) < 1e-9
            && own.parameters?["truncate"]?.bool ?? true:
            addScaling("type", .string("yarn"))
            addScaling("factor", .number(Float(factor)))
            addScaling("original_context_length", .integer(own.original))
            for name in ["beta_fast", "beta_slow"] {
                if let value = own.parameters?[name]?.double { addScaling("yarn_\(name)", .number(Float(value))) }
            }
        case "llama3",
            "longrope" where rotary.longFrequencies == rotary.frequencies && rotary.attentionFactor == 1:
            let plain = rotary.frequencies.indices.map {
                Foundation.pow(own.base, -2 * Double($0) / Double(own.size))
            }
            factors = zip(plain, rotary.frequencies).map { Float($0 / $1) }
        default:
            throw PEFTError(
                "the RoPE type '\(own.kind)' of this model can't be stored in a GGUF file",
                remedy: "save the model as a folder")
        }
    }
}
