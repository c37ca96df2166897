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

    /// - Parameters:
    ///   - keys: number of key-value heads, and sizes of their keys and values, if not the model's.
    ///   - rotated: the number of dimensions of each head that RoPE rotates; `nil` for all, 0 for none.
    mutating func addSizes(
        of model: any GGUFWritable, keys: (heads: Int, key: Int, value: Int)? = nil, rotated: Int? = nil,
        epsilonKey: String = "attention.layer_norm_rms_epsilon"
    ) {
        let sizes = model.ggufSizes
        // BLOOM has another key.
        let positions = ["max_position_embeddings", "seq_length"].lazy.compactMap { model.configuration[$0]?.int }
            .first
        add("block_count", .integer(sizes.layers))
        add("context_length", .integer(positions ?? 2048))
        add("embedding_length", .integer(sizes.hiddenSize))
        add("feed_forward_length", .integer(sizes.feedForwardSize))
        add("attention.head_count", .integer(sizes.heads))
        let keyHeads = keys?.heads ?? sizes.keyHeads
        add(
            "attention.head_count_kv",
            sizes.isRecurrent.map { layers in
                GGUFValue.list(GGUFList(layers.map { $0 ? Int32(0) : Int32(keyHeads) }))
            } ?? .integer(keyHeads))
        add("attention.key_length", .integer(keys?.key ?? sizes.headSize))
        add("attention.value_length", .integer(keys?.value ?? sizes.headSize))
        add(epsilonKey, .number(Float(sizes.epsilon)))
        if rotated != 0 { add("rope.dimension_count", .integer(rotated ?? sizes.headSize)) }
        add("vocab_size", .integer(model.vocabularyTable?.entries ?? 0))
    }

    /// - Parameter period: all layers but every one of this number have sliding windows; `nil` if none may.
    /// - Throws: ``PEFTError`` for other layers.
    func requireWindows(_ windows: [Int?], period: Int?) throws {
        let window = windows.lazy.compactMap { $0 }.first
        guard let period else {
            guard window == nil else { throw refusal("layers use sliding-window attention") }
            return
        }
        let isUsual = windows.indices.allSatisfy { windows[$0] == (($0 + 1).isMultiple(of: period) ? nil : window) }
        guard isUsual, window != nil else {
            throw refusal("sliding-window layers aren't all but every \(period)th")
        }
    }

    /// - Throws: ``PEFTError`` for a RoPE type that llama.cpp lacks.
    mutating func addRotary(_ rotary: RotaryPositions, yarn: GGUFYaRN = GGUFYaRN()) throws {
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
        where abs(rotary.attentionFactor - yarn.attentionFactor(factor)) < 1e-9
            && own.parameters?["truncate"]?.bool ?? true == yarn.rounds:
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

/// How llama.cpp scales positions by YaRN (Peng et al. 2023) in a family.
struct GGUFYaRN: Sendable {
    /// Whether models round the bounds of the interpolated pairs. llama.cpp always does.
    var rounds = true
    /// Whether cosines and sines are multiplied by 0.1 ln s + 1.
    var scales = true

    func attentionFactor(_ factor: Double) -> Double { scales ? 0.1 * Foundation.log(max(1, factor)) + 1 : 1 }
}
