import Foundation
import Support
import Torch
import TorchNN

extension LanguageModel {
    /// Writes the model as a GGUF file for llama.cpp and transformers.
    ///
    /// - Parameters:
    ///   - type: storage type of matrices. Vectors stay F32; with Q4_0 the embeddings and the output layer are Q8_0;
    ///     rows that aren't whole blocks are F16.
    ///   - tokenizer: the tokenizer's metadata from ``GGUFVocabulary``.
    ///   - name: the model's name in the file.
    /// - Throws: ``PEFTError`` for a model that llama.cpp would compute differently, with the difference.
    public func writeGGUF(
        to url: URL, type: GGUFType, tokenizer: [(String, GGUFValue)], name: String, replacing: Bool = true
    ) throws {
        let names = try GGUFNames(of: self)
        let description = try GGUFDescription(of: self, names)
        var contents: [GGUFFile.Content] = []
        func add(_ path: String, _ shape: [Int], _ make: @escaping () -> Tensor) throws {
            guard let target = names.tensor(of: path) else {
                throw PEFTError("a GGUF file can't store '\(path)'", remedy: "merge the adapter first")
            }
            let adds = names.architecture.addsOneToNorms && path.hasSuffix("norm.weight")
            let stored = Self.storedType(of: path, shape, type, outer: [inputEmbedding, outputLayer])
            contents.append(
                .init(target, shape, stored) {
                    let tensor = try names.stored(make().detached().to(.cpu).to(.float32), at: path)
                    return adds ? tensor + 1 : tensor
                })
        }
        let packed = storedAsTheyAre
        for (path, parameter) in parameters() where !packed.contains(ObjectIdentifier(parameter)) {
            try add(path, parameter.tensor.shape) { parameter.tensor }
        }
        for (path, module) in namedModules() {
            guard
                let weight = (module as? Linear)?.weight
                    ?? (module as? Embedding).flatMap({ $0.table == nil ? $0.weight : nil }),
                weight.isQuantized
            else { continue }
            try add("\(path).weight", [weight.outputs, weight.inputs]) { weight.dense(as: .float32) }
        }
        if let factors = description.factors {
            contents.append(.init("rope_freqs.weight", [factors.count], .f32) { Tensor(factors) })
        }
        let general: [(String, GGUFValue)] = [
            ("general.architecture", .string(names.name)), ("general.type", .string("model")),
            ("general.name", .string(name)), ("general.file_type", .integer(type.fileType)),
            ("general.quantization_version", .integer(2)),
        ]
        try GGUFFile.write(general + description.settings + tokenizer, contents, to: url, replacing: replacing)
    }

    private static func storedType(of path: String, _ shape: [Int], _ type: GGUFType, outer: [String]) -> GGUFType {
        guard shape.count > 1 else { return .f32 }
        guard type.plain == nil else { return type }
        guard let width = shape.last, width.isMultiple(of: 32) else { return .f16 }
        return outer.contains { path == $0 + ".weight" } ? .q8_0 : type
    }
}

/// A model's metadata in a GGUF file.
private struct GGUFDescription {
    private(set) var settings: [(String, GGUFValue)] = []
    /// RoPE scaling factors of each pair, if the metadata can't express them.
    private(set) var factors: [Float]?

    init(of model: any LanguageModel, _ names: GGUFNames) throws {
        let prefix = names.name + "."
        func refusal(_ what: String) -> PEFTError {
            PEFTError("a GGUF file can't express that \(what)", remedy: "save the model as a folder")
        }
        func add(_ key: String, _ value: GGUFValue) { settings.append((prefix + key, value)) }
        func sizes(_ layers: Int, _ hidden: Int, _ feedForward: Int, _ head: Int, _ epsilon: Double) {
            add("block_count", .integer(layers))
            add("context_length", .integer(model.configuration["max_position_embeddings"]?.int ?? 2048))
            add("embedding_length", .integer(hidden))
            add("feed_forward_length", .integer(feedForward))
            add("attention.head_count", .integer(names.heads))
            add("attention.head_count_kv", .integer(names.keyHeads))
            add("attention.key_length", .integer(head))
            add("attention.value_length", .integer(head))
            add("attention.layer_norm_rms_epsilon", .number(Float(epsilon)))
            add("rope.dimension_count", .integer(head))
            add("vocab_size", .integer(model.vocabularyTable?.entries ?? 0))
        }
        switch model {
        case let model as Llama:
            let own = model.settings
            guard own.windows.allSatisfy({ $0 == nil }) else { throw refusal("layers use sliding-window attention") }
            guard own.activation == .silu else { throw refusal("its activation isn't SiLU") }
            sizes(own.layers, own.hiddenSize, own.feedForwardSize, own.headSize, own.epsilon)
            try addRotary(own.rotary, prefix)
        case let model as Gemma:
            let own = model.settings
            guard own.activation == .geluTanh else { throw refusal("its activation isn't tanh-approximated GELU") }
            sizes(own.layers, own.hiddenSize, own.feedForwardSize, own.headSize, own.epsilon)
            try addRotary(own.rotary, prefix)
            guard own.hasOutputNorms else { break }
            let unusual = GGUFArchitecture.unusualScales[names.name] == own.layers
            let width = unusual ? own.hiddenSize / own.heads : own.headSize
            guard abs(own.scale * Double(width).squareRoot() - 1) < 1e-9 else {
                throw refusal("attention scores are scaled by \(own.scale)")
            }
            let period = names.name == "gemma2" ? 2 : 6
            guard let window = own.windows.compactMap({ $0 }).first,
                own.windows.indices.allSatisfy({
                    own.windows[$0] == (($0 + 1).isMultiple(of: period) ? nil : window)
                })
            else { throw refusal("sliding-window layers aren't all but every \(period)th") }
            add("attention.sliding_window", .integer(window))
            if names.name == "gemma2" {
                guard let scores = own.attentionSoftcap, let output = own.outputSoftcap else {
                    throw refusal("a Gemma 2 has no softcap on its scores")
                }
                add("attn_logit_softcapping", .number(Float(scores)))
                add("final_logit_softcapping", .number(Float(output)))
            } else {
                if let output = own.outputSoftcap { add("final_logit_softcapping", .number(Float(output))) }
                add("rope.freq_base_swa", .number(Float(own.localRotary.settings.base)))
                guard own.localRotary.settings.kind == "default" else {
                    throw refusal("sliding-window layers scale their RoPE positions")
                }
            }
        default: break
        }
    }

    private mutating func addRotary(_ rotary: RotaryPositions, _ prefix: String) throws {
        let own = rotary.settings
        settings.append((prefix + "rope.freq_base", .number(Float(own.base))))
        func add(_ key: String, _ value: GGUFValue) { settings.append((prefix + "rope.scaling." + key, value)) }
        let factor = own.parameters?["factor"]?.double ?? 1
        switch own.kind {
        case "default": break
        case "linear":
            add("type", .string("linear"))
            add("factor", .number(Float(factor)))
        case "yarn"
        where abs(rotary.attentionFactor - (0.1 * Foundation.log(max(1, factor)) + 1)) < 1e-9
            && own.parameters?["truncate"]?.bool ?? true:
            add("type", .string("yarn"))
            add("factor", .number(Float(factor)))
            add("original_context_length", .integer(own.original))
            for name in ["beta_fast", "beta_slow"] {
                if let value = own.parameters?[name]?.double { add("yarn_\(name)", .number(Float(value))) }
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
