import PEFTSupport

extension Gemma: GGUFWritable {
    var ggufSizes: GGUFSizes {
        GGUFSizes(
            layers: settings.layers, hiddenSize: settings.hiddenSize, feedForwardSize: settings.feedForwardSize,
            heads: settings.heads, keyHeads: settings.keyHeads, headSize: settings.headSize,
            epsilon: settings.epsilon)
    }

    func describe(in description: inout GGUFDescription) throws {
        guard settings.activation == .geluTanh else {
            throw description.refusal("its activation isn't tanh-approximated GELU")
        }
        description.addSizes(of: self)
        try description.addRotary(settings.rotary)
        guard settings.hasOutputNorms else { return }
        let width = Self.scoreWidth(ggufSizes, version: settings.version)
        guard abs(settings.scale * Double(width).squareRoot() - 1) < 1e-9 else {
            throw description.refusal("attention scores are scaled by \(settings.scale)")
        }
        let period = settings.version == 2 ? 2 : 6
        guard let window = settings.windows.compactMap({ $0 }).first,
            settings.windows.indices.allSatisfy({
                settings.windows[$0] == (($0 + 1).isMultiple(of: period) ? nil : window)
            })
        else { throw description.refusal("sliding-window layers aren't all but every \(period)th") }
        description.add("attention.sliding_window", .integer(window))
        if settings.version == 2 {
            guard let scores = settings.attentionSoftcap, let output = settings.outputSoftcap else {
                throw description.refusal("a Gemma 2 has no softcap on its scores")
            }
            description.add("attn_logit_softcapping", .number(Float(scores)))
            description.add("final_logit_softcapping", .number(Float(output)))
        } else {
            if let output = settings.outputSoftcap {
                description.add("final_logit_softcapping", .number(Float(output)))
            }
            description.add("rope.freq_base_swa", .number(Float(settings.localRotary.settings.base)))
            guard settings.localRotary.settings.kind == "default" else {
                throw description.refusal("sliding-window layers scale their RoPE positions")
            }
        }
    }

    /// w of the scale 1/√w of attention scores in llama.cpp: the size of a head, except in the largest model of a
    /// version, where it is the hidden size divided by the number of heads.
    static func scoreWidth(_ sizes: GGUFSizes, version: Int) -> Int {
        let largest = version == 2 ? 46 : 62
        return sizes.layers == largest ? sizes.hiddenSize / sizes.heads : sizes.headSize
    }

    /// Keys of `config.json` that all versions have in a GGUF file.
    static let ggufActivation: [String: JSON] = [
        "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
    ]
}

extension GGUFTensorNames {
    /// Llama's names and those of the norms of the sublayers' outputs, since Gemma 2.
    static let gemma2 = GGUFTensorNames(
        outer: llama.outer,
        inner: llama.inner.filter { $0.file != "ffn_norm" } + [
            ("post_attention_norm", "post_attention_layernorm"), ("ffn_norm", "pre_feedforward_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
        ])
}
