import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Bottleneck adapters of AdapterHub: Houlsby's, Pfeiffer's, parallel ones, and Compacter's as the matrices that its layers are.
extension AdapterHubFile {
    func bottlenecks() throws -> (BottleneckConfiguration, [String: Tensor]) {
        try require([
            "original_ln_after": [true], "residual_before_ln": [true], "adapter_residual_before_ln": [false],
            "ln_before": [false], "ln_after": [false], "use_gating": [false], "stochastic_depth": [0],
        ])
        var configuration = BottleneckConfiguration()
        configuration.isParallel = settings["is_parallel"] == true
        // A sublayer of BERT reads the stream itself.
        configuration.readsStream =
            configuration.isParallel
            ? !["bert", "roberta", "xlm-roberta", "distilbert"].contains(model.family)
            : settings["original_ln_before"] == true
        let learned = settings["scaling"]?.string
        guard learned == nil || learned == "learned" || learned == "channel" else {
            throw PEFTError("\(file) has 'scaling': '\(learned ?? "")', which is not supported")
        }
        configuration.learnsScale = learned == "learned"
        configuration.scale = settings["scaling"]?.double ?? 1
        let names = ["swish": "silu", "relu": "relu", "gelu": "gelu", "silu": "silu", "gelu_new": "gelu_new"]
        let given = settings["non_linearity"]?.string ?? ""
        guard let activation = names[given] else {
            throw PEFTError(
                "\(file) has the activation '\(given)', which is not supported",
                remedy: "use one of \(names.keys.sorted().joined(separator: ", "))")
        }
        let outline = ModelOutline(model)
        var (kinds, ranks, tensors): (Set<SublayerKind>, Set<Int>, [String: Tensor]) = ([], [], [:])
        let isHypercomplex = settings["phm_layer"] == true
        for (module, stored) in try parts(
            "adapters", "attention_text_task_adapters", "attention_text_lang_adapters", "layer_text_task_adapters",
            "layer_text_lang_adapters")
        {
            let site = try sublayer(module, in: outline)
            var parts = isHypercomplex ? try dense(stored, module, size: site.size) : stored
            let factor =
                learned == nil ? nil : try part("scaling", of: parts, module, [learned == "learned" ? 1 : site.size])
            parts["scaling"] = nil
            try only(
                ["adapter_down.0.weight", "adapter_down.0.bias", "adapter_up.weight", "adapter_up.bias"], in: parts,
                module)
            let down = try part("adapter_down.0.weight", of: parts, module, [nil, site.size])
            let rank = down.dim(0)
            kinds.insert(site.kind)
            ranks.insert(rank)
            let key = AdapterKeys.prefix + site.path
            tensors[key + ".down.weight"] = down
            tensors[key + ".down.bias"] = try part("adapter_down.0.bias", of: parts, module, [rank])
            tensors[key + ".up.weight"] = try part("adapter_up.weight", of: parts, module, [site.size, rank])
            tensors[key + ".up.bias"] = try part("adapter_up.bias", of: parts, module, [site.size])
            guard let factor else { continue }
            if configuration.learnsScale {
                tensors[key + ".scale"] = factor
            } else {
                // A scale by channel is that of U's rows.
                try withTorchErrors {
                    tensors[key + ".up.weight"] = tensors[key + ".up.weight"].map { $0 * factor.unsqueezed(1) }
                    tensors[key + ".up.bias"] = tensors[key + ".up.bias"].map { $0 * factor }
                }
            }
        }
        guard let rank = ranks.first, ranks.count == 1 else {
            throw PEFTError(
                "\(file) has adapters of sizes \(ranks.sorted()), which can't be converted",
                remedy: "all layers must have one size")
        }
        let missing = outline.outputs.first {
            kinds.contains($0.kind) && tensors[AdapterKeys.prefix + $0.path + ".up.bias"] == nil
        }
        if let missing {
            throw PEFTError(
                "\(weights.url.path) has no adapter at \(missing.path), while other layers have one there",
                remedy: "all layers must have the same adapters")
        }
        (configuration.rank, configuration.activation) = (rank, activation)
        configuration.sublayers = SublayerKind.allCases.filter { kinds.contains($0) }
        return (configuration, tensors)
    }

    /// Level of names at which modules share tensors.
    static let shared = "shared_parameters"

    /// Compacter's layers (Mahabadi et al. 2021) as matrices: Wᵀ = Σᵢ Aᵢ ⊗ Bᵢ with A `[n, n, n]` and B `[n, in / n, out /
    /// n]`, either of which may be a product of two factors, in the module or shared by all.
    private func dense(_ parts: [String: Tensor], _ module: String, size: Int) throws -> [String: Tensor] {
        var result: [String: Tensor] = parts["scaling"].map { ["scaling": $0] } ?? [:]
        for (layer, position) in [("adapter_down.0", "down"), ("adapter_up", "up")] {
            let rule = try factor(
                "phm_rule", of: parts, layer, shared: "phm_rule", isProduct: settings["factorized_phm_rule"] == true)
            let weight = try factor(
                "W", of: parts, layer, shared: "W_\(position)", isProduct: settings["factorized_phm_W"] != false)
            let count = rule.rank == 3 ? rule.dim(0) : 0
            guard rule.shape == [count, count, count], count > 0, weight.rank == 3, weight.dim(0) == count else {
                throw PEFTError(
                    "\(layer) of \(module) has factors of shapes \(rule.shape) and \(weight.shape), which don't fit",
                    remedy: "download the folder again")
            }
            let (inputs, outputs) = (weight.dim(1) * count, weight.dim(2) * count)
            guard (position == "down" ? inputs : outputs) == size else {
                throw PEFTError(
                    "\(layer) of \(module) has \(position == "down" ? inputs : outputs) channels, expected \(size)",
                    remedy: "use the base model that the adapter was trained on")
            }
            try withTorchErrors {
                // Element (a · in / n + c, b · out / n + d) is the sum over i of A(i, a, b) B(i, c, d).
                let sum = rule.reshaped(count, -1).T.matmul(weight.reshaped(count, -1))
                let product = sum.reshaped(count, count, weight.dim(1), weight.dim(2)).permuted(0, 2, 1, 3)
                result["\(layer).weight"] = product.reshaped(inputs, outputs).T.contiguous()
            }
            result["\(layer).bias"] = parts["\(layer).b"] ?? .zeros([outputs])
        }
        let known = ["W", "W_left", "W_right", "phm_rule", "phm_rule_left", "phm_rule_right", "b"]
        try only(
            Set(["adapter_down.0", "adapter_up"].flatMap { layer in known.map { "\(layer).\($0)" } } + ["scaling"]),
            in: parts,
            module)
        return result
    }

    /// A factor of a module's layer, or the one that all modules share.
    private func factor(
        _ name: String, of parts: [String: Tensor], _ layer: String, shared: String, isProduct: Bool
    ) throws -> Tensor {
        func stored(_ end: String) throws -> Tensor {
            if let own = parts["\(layer).\(name)\(end)"] { return own }
            let common = weights.entries.keys.sorted().first {
                $0.contains(".\(Self.shared).") && $0.hasSuffix(".\(shared)\(end)")
            }
            guard let common else {
                throw PEFTError("\(weights.url.path) lacks '\(name)\(end)'", remedy: "download the folder again")
            }
            return try weights.tensor(common)
        }
        guard isProduct else { return try stored("") }
        let (left, right) = (try stored("_left"), try stored("_right"))
        guard left.rank == 3, right.rank == 3, left.dim(0) == right.dim(0), left.dim(2) == right.dim(1) else {
            throw PEFTError(
                "\(weights.url.path) has factors of shapes \(left.shape) and \(right.shape)",
                remedy: "download the folder again")
        }
        return try withTorchErrors { left.matmul(right) }
    }

    /// The sublayer that an adapter of a module follows: by the module's name there (BERT, Llama, GPT-2), or by its place
    /// among the sublayers of a block (T5).
    func sublayer(_ module: String, in outline: ModelOutline) throws -> ModelOutline.SublayerSite {
        let unknown = PEFTError(
            "\(weights.url.path) has an adapter at '\(module)', which is no sublayer of this \(model.family) model",
            remedy: "use the base model that the adapter was trained on")
        // One that is followed by `output_site` has the same name as the adapter's module.
        if let site = outline.outputs.first(where: { $0.path == module + ".output_site" }) { return site }
        let ends: [(String, SublayerKind)] = [
            (".attention.output", .attention), (".attention_adapters", .attention),
            (".output_adapters", .feedForward),
            (".output", .feedForward),
        ]
        guard let (end, kind) = ends.first(where: { module.hasSuffix($0.0) }) else { throw unknown }
        let block = module.dropLast(end.count) + "."
        guard let site = outline.outputs.first(where: { $0.kind == kind && $0.path.hasPrefix(block) }) else {
            throw unknown
        }
        return site
    }
}
