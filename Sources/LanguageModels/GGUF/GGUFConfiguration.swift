import Foundation
import PEFTSupport
import Torch

/// Converts the metadata of a GGUF file to a `config.json`.
struct GGUFConfiguration {
    let names: GGUFNames
    let json: JSON

    /// - Throws: ``PEFTError`` for another kind of file, an unsupported architecture, and missing or invalid
    ///   metadata.
    init(_ file: GGUFFile) throws {
        let read = GGUFSettings(file)
        let (family, architecture) = try read.architecture()
        let layers = try read.count("block_count")
        guard layers <= file.entries.count else {
            throw PEFTError(
                "\(file.url.path) declares \(layers) layers but contains only \(file.entries.count) tensors",
                remedy: "the file is damaged; download it again")
        }
        let size = try read.count("embedding_length")
        let heads = try read.count("attention.head_count")
        let (keyHeads, isRecurrent) = try read.keyHeads(layers: layers, default: heads)
        let rotated = try read.count("rope.dimension_count", default: 0, from: 0)
        let headSize =
            architecture.isLatent && rotated > 0
            ? rotated
            : try read.count(
                "attention.key_length",
                default: rotated > 0 && !architecture.rotatesParts ? rotated : max(1, size / heads))
        guard rotated == 0 || rotated == headSize || architecture.rotatesParts && rotated < headSize else {
            throw PEFTError(
                "\(file.url.path) applies RoPE to \(rotated) of \(headSize) head dimensions, which is not supported",
                remedy: "use another model")
        }
        guard try architecture.isLatent || read.count("attention.value_length", default: headSize) == headSize else {
            throw PEFTError(
                "\(file.url.path) has keys and values of different sizes, which is not supported",
                remedy: "use another model")
        }
        guard architecture.isHybrid || isRecurrent?.contains(true) != true else {
            throw PEFTError(
                "\(file.url.path) has layers without keys and values, which is not supported for '\(architecture.name)'",
                remedy: "use another model")
        }
        guard let table = file.entries["token_embd.weight"], table.shape.count == 2 else {
            throw PEFTError(
                "\(file.url.path) has no 'token_embd.weight'", remedy: "use a GGUF file with a complete model")
        }
        let feedForwardSize = try read.count("feed_forward_length")
        let positions = try read.count("context_length", default: 2048)
        let sizes = GGUFSizes(
            layers: layers, hiddenSize: size, feedForwardSize: feedForwardSize, heads: heads, keyHeads: keyHeads,
            headSize: headSize, epsilon: try read.number(architecture.epsilon.file), isRecurrent: isRecurrent)
        var fields: [String: JSON] = [
            "model_type": .string(family.name), "architectures": [.string(architecture.modelClass)],
            "vocab_size": .integer(table.shape[0]), "hidden_size": .integer(size),
            "intermediate_size": .integer(feedForwardSize),
            "num_hidden_layers": .integer(layers), "num_attention_heads": .integer(heads),
            "num_key_value_heads": .integer(keyHeads), "head_dim": .integer(headSize),
            "max_position_embeddings": .integer(positions),
            architecture.epsilon.model: .number(sizes.epsilon),
            "tie_word_embeddings": .bool(file.entries["output.weight"] == nil),
            "attention_dropout": 0.0, "use_cache": true,
        ]
        fields.merge(try architecture.configuration(read, sizes)) { $1 }
        let rotarySize = rotated > 0 ? rotated : headSize
        if architecture.rotatesParts {
            fields["partial_rotary_factor"] = .number(GGUFSizes.share(rotarySize, of: headSize))
        }
        if architecture.hasRotary { fields.merge(try read.rotary(headSize: rotarySize)) { $1 } }
        try architecture.rotary(read, &fields)
        fields.merge(read.tokens()) { $1 }
        json = .object(fields)
        names = GGUFNames(
            architecture, heads: heads, keyHeads: keyHeads, tensors: architecture.fileTensors?(read))
    }
}

/// Typed access to metadata, with errors that name the key.
struct GGUFSettings {
    let file: GGUFFile
    private let prefix: String

    init(_ file: GGUFFile) {
        self.file = file
        prefix = (file.settings["general.architecture"]?.string ?? "") + "."
    }

    subscript(key: String) -> GGUFValue? { file.settings[prefix + key] }

    /// Whether the file has a tensor.
    func hasTensor(_ name: String) -> Bool { file.entries[name] != nil }

    func architecture() throws -> (ModelFamily, GGUFArchitecture) {
        let kind = file.settings["general.type"]?.string ?? "model"
        guard kind == "model" else {
            throw PEFTError(
                "\(file.url.path) is of the type '\(kind)', not a model",
                remedy: kind == "adapter"
                    ? "convert it with peft convert and pass it to --adapter" : "use a model's file"
            )
        }
        guard let name = file.settings["general.architecture"]?.string else {
            throw PEFTError(
                "\(file.url.path) has no 'general.architecture'", remedy: "the file is damaged; download it again")
        }
        let readable = ModelRegistry.families.compactMap { family in family.gguf.read.map { (family, $0) } }
        let named = readable.filter { $1.name == name }
        guard !named.isEmpty else {
            var names: [String] = []
            for (_, architecture) in readable where !names.contains(architecture.name) {
                names.append(architecture.name)
            }
            throw PEFTError(
                "\(file.url.path) has the architecture '\(name)', which is not supported in GGUF files",
                remedy: "supported architectures are \(names.joined(separator: ", "))")
        }
        // A Mixtral is a 'llama' with experts.
        let hasExperts = self["expert_count"]?.integer ?? 0 > 0
        let fitting = named.filter {
            ($1.experts != nil) == hasExperts || !hasExperts && $1.mayLackExperts
        }
        guard let match = fitting.first(where: { $1.isFamily(self) }) ?? fitting.first else {
            let what = hasExperts ? "experts" : "no experts"
            throw PEFTError(
                "\(file.url.path) has \(what) ('\(name).expert_count'), which is not supported for '\(name)'",
                remedy: hasExperts ? "use a model without experts" : "use a mixture of experts")
        }
        return match
    }

    private func wrong(_ key: String, _ remedy: String) -> PEFTError {
        PEFTError(
            "\(file.url.path): '\(prefix + key)' \(self[key] == nil ? "is missing" : "is invalid")", remedy: remedy)
    }

    func count(_ key: String, default fallback: Int? = nil, from least: Int = 1) throws -> Int {
        if self[key] == nil, let fallback { return fallback }
        guard let value = self[key]?.integer, value >= least, value <= 1_000_000_000 else {
            throw wrong(key, "use an integer of at least \(least), the same for all layers")
        }
        return value
    }

    /// The number of key-value heads, and which layers have none; `nil` if the file has one number for all.
    func keyHeads(layers: Int, default fallback: Int) throws -> (count: Int, isRecurrent: [Bool]?) {
        let key = "attention.head_count_kv"
        guard let list = self[key]?.list else { return (try count(key, default: fallback), nil) }
        let counts = (list.numbers ?? []).compactMap { Int(exactly: $0) }
        let most = counts.max() ?? 0
        guard counts.count == layers, list.count == layers, (1...1_000_000).contains(most),
            counts.allSatisfy({ $0 == 0 || $0 == most })
        else { throw wrong(key, "use an integer of at least 1, the same for all layers that have keys") }
        return (most, counts.map { $0 == 0 })
    }

    func number(_ key: String, default fallback: Double? = nil) throws -> Double {
        if self[key] == nil, let fallback { return fallback }
        guard let value = self[key]?.number, value > 0, value.isFinite else {
            throw wrong(key, "use a number above 0")
        }
        // The float32's shortest decimal form: 1e-06 rather than 9.999999974752427e-07.
        return Double("\(Float(value))") ?? value
    }

    func tokens() -> [String: JSON] {
        func id(_ role: String) -> Int? { file.settings["tokenizer.ggml.\(role)_token_id"]?.integer }
        var fields: [String: JSON] = [:]
        fields["bos_token_id"] = id("bos").map(JSON.integer)
        fields["pad_token_id"] = id("padding").map(JSON.integer)
        var ends: [Int] = []
        for end in ["eos", "eot", "eom"].compactMap(id) where !ends.contains(end) { ends.append(end) }
        if let first = ends.first {
            fields["eos_token_id"] = ends.count == 1 ? .integer(first) : .array(ends.map(JSON.integer))
        }
        return fields
    }

    // MARK: RoPE

    func rotary(headSize: Int) throws -> [String: JSON] {
        let base = try number("rope.freq_base", default: 10_000)
        var fields: [String: JSON] = ["rope_theta": .number(base)]
        let original = self["rope.scaling.original_context_length"]?.integer
        var scaling: [String: JSON]?
        // Files from before the end of 2023 have only a scale.
        let kind = self["rope.scaling.type"]?.string ?? (self["rope.scale_linear"] == nil ? "none" : "linear")
        switch kind {
        case "none": break
        case "linear":
            let old = try number("rope.scale_linear", default: 1)
            let factor = try number("rope.scaling.factor", default: old)
            if factor != 1 { scaling = ["rope_type": "linear", "factor": .number(factor)] }
        case "yarn":
            scaling = ["rope_type": "yarn", "factor": .number(try number("rope.scaling.factor"))]
            scaling?["original_max_position_embeddings"] = original.map(JSON.integer)
            for (key, name) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")]
            where self["rope.scaling.\(key)"] != nil {
                scaling?[name] = .number(try number("rope.scaling.\(key)"))
            }
        default:
            throw PEFTError(
                "\(file.url.path): the RoPE type '\(kind)' is not supported in GGUF files",
                remedy: "supported are none, linear, yarn and factors in 'rope_freqs.weight'")
        }
        if file.entries["rope_freqs.weight"] != nil {
            guard scaling == nil else {
                throw PEFTError(
                    "\(file.url.path) has both '\(prefix)rope.scaling.type' and 'rope_freqs.weight'",
                    remedy: "the file is damaged; download it again")
            }
            scaling = try factors(base: base, headSize: headSize, original: original)
        }
        fields["rope_scaling"] = scaling.map(JSON.object)
        return fields
    }

    /// The RoPE scaling factors of each pair: expressed as Llama 3.1's formula if they match it, otherwise as a list.
    private func factors(base: Double, headSize: Int, original: Int?) throws -> [String: JSON] {
        let numbers = try withTorchErrors { try file.tensor("rope_freqs.weight").array(Double.self) }
        guard numbers.count == headSize / 2, numbers.allSatisfy({ $0 > 0 && $0.isFinite }) else {
            throw PEFTError(
                "\(file.url.path): 'rope_freqs.weight' has \(numbers.count) values, expected \(headSize / 2) above 0",
                remedy: "the file is damaged; download it again")
        }
        let llama: [String: JSON] = [
            "rope_type": "llama3", "factor": .number((numbers.max() ?? 1).rounded()), "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": .integer(original ?? 8192),
        ]
        let plain = (0..<numbers.count).map { Foundation.pow(base, -2 * Double($0) / Double(headSize)) }
        let settings = RotaryPositions.Settings(
            parameters: .object(llama), kind: "llama3", base: base, size: headSize, positions: original ?? 8192)
        let known = try settings.llama3(plain)
        let fits = numbers.indices.allSatisfy { index in
            abs(plain[index] / known[index] - numbers[index]) <= 1e-5 * numbers[index]
        }
        if fits { return llama }
        let length = try original ?? count("context_length", default: 2048)
        return [
            "rope_type": "longrope", "attention_factor": 1.0, "short_factor": .array(numbers.map(JSON.number)),
            "long_factor": .array(numbers.map(JSON.number)), "original_max_position_embeddings": .integer(length),
        ]
    }
}
