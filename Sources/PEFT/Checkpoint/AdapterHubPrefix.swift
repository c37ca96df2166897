import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Prefix tuning of AdapterHub.
extension AdapterHubFile {
    /// The prefix's keys and values, computed by its MLP if it has one, in the form of Hugging Face PEFT.
    ///
    /// There, texts begin at position 0 beside a prefix; here, as in Hugging Face PEFT, after its P tokens. With rotary
    /// positions, R(p) q · k = R(p + P) q · R(P) k, so the keys are stored rotated by P positions.
    func prefix() throws -> ([String: JSON], [String: Tensor]) {
        try require(["use_gating": [false], "leave_out": [[]]])
        guard let rotating = model as? any KeyRotating else {
            throw PEFTError(
                "\(file) is a prefix for a \(model.family) model, whose positions it would shift here",
                remedy: "prefixes of Llama and Mistral can be converted")
        }
        let tokens = settings["prefix_length"]?.int ?? 0
        var configuration = PrefixTuning.Configuration()
        guard tokens > 0, tokens <= 1_000_000 else {
            throw PEFTError("\(file) has no positive 'prefix_length'", remedy: "download the file again")
        }
        configuration.tokens.count = tokens
        configuration = PrefixTuning.Implementation.resolved(configuration, for: ModelOutline(model))
        let layout = try PrefixLayout(configuration.tokens, of: ModelOutline(model), method: "prefix")
        let (layers, size) = (layout.layers, layout.size)
        // Each layer's reference to the prefixes of all layers is in the file, too.
        let own = weights.entries.keys.filter { !$0.contains(".pool.") && $0.contains(".prefix_tunings.") }
        let parts = Dictionary(
            own.map { ($0.split(separator: ".").drop { $0 != "self_prefix" }.joined(separator: "."), $0) },
            uniquingKeysWith: { first, _ in first })
        func tensor(_ name: String, _ shape: [Int?]) throws -> Tensor {
            let stored = try parts["self_prefix.\(name)"].map { [name: try weights.tensor($0)] } ?? [:]
            return try part(name, of: stored, "self_prefix", shape)
        }
        let width = layers * 2 * size
        let all: Tensor
        if settings["flat"] == true {
            all = try tensor("control_trans", [tokens * width]).reshaped(tokens, width)
        } else {
            let given = settings["non_linearity"]?.string ?? ""
            let activation = Activation(huggingFaceName: given)
            guard activation != nil || given == "tanh" else {
                throw PEFTError("\(file) has the activation '\(given)', which is not supported")
            }
            let x = try tensor("wte.weight", [tokens, nil])
            let down = try tensor("control_trans.0.weight", [nil, x.dim(1)])
            let downBias = try tensor("control_trans.0.bias", [down.dim(0)])
            let up = try tensor("control_trans.2.weight", [width, down.dim(0)])
            let upBias = try tensor("control_trans.2.bias", [width])
            all = try withTorchErrors {
                let hidden = Functions.linear(x, down, bias: downBias)
                return Functions.linear(activation?(hidden) ?? hidden.tanh(), up, bias: upBias)
            }
        }
        let heads = configuration.tokens.heads ?? 1
        let vectors = try withTorchErrors {
            try (0..<layers).flatMap { layer -> [Tensor] in
                let keys = all.narrowed(axis: 1, (2 * layer * size)..<((2 * layer + 1) * size))
                    .reshaped(tokens, heads, -1)
                guard let rotated = rotating.rotated(keys.contiguous(), by: tokens, layer: layer) else {
                    throw PEFTError(
                        "layer \(layer) of this \(model.family) model has a window or scaled positions, with which a prefix of "
                            + "AdapterHub computes something else",
                        remedy: "use a model without them")
                }
                let values = all.narrowed(axis: 1, ((2 * layer + 1) * size)..<((2 * layer + 2) * size))
                return [rotated.reshaped(tokens, size), values]
            }
        }
        var json = configuration.json
        json["peft_type"] = .string(PrefixTuning.peftType ?? "PREFIX_TUNING")
        return (json, [Prefix.output: try withTorchErrors { Tensor.concatenated(vectors, axis: 1).contiguous() }])
    }
}
