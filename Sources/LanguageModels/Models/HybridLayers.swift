import PEFTSupport

/// The layers of a hybrid model that compute along sequences with states of fixed size, in place of an attention.
struct HybridLayers: Sendable {
    let mixer: Mixer
    /// Whether each layer has the mixer, rather than an attention alone.
    let layers: [Bool]

    enum Mixer: Sendable {
        case deltaNet(GatedDeltaNet.Settings)
        case convolution(GatedConvolution.Settings)
        case stateSpace(Mamba2.Settings)
        /// Beside an attention.
        case parallel(ParallelMixer.Settings)
    }

    /// Name of the mixer of a layer in the checkpoint; `nil` for an attention, empty if its parts have names.
    func key(ofLayer layer: Int) -> String? {
        guard layers[layer] else { return nil }
        switch mixer {
        case .deltaNet: return "linear_attn"
        case .convolution: return "conv"
        case .stateSpace: return "mamba"
        case .parallel: return ""
        }
    }

    /// The mixer of a layer; `nil` for an attention.
    /// - Parameter attention: creates the layer's attention.
    func mixer(ofLayer layer: Int, attention: () -> GroupedQueryAttention) -> SelfAttention? {
        guard layers[layer] else { return nil }
        switch mixer {
        case .deltaNet(let settings): return GatedDeltaNet(settings, layer: layer)
        case .convolution(let settings): return GatedConvolution(settings, layer: layer)
        case .stateSpace(let settings): return Mamba2(settings, layer: layer)
        case .parallel(let settings): return ParallelMixer(settings, layer: layer, attention: attention())
        }
    }

    /// `layer_types` with transformers' names since version 5; `nil` without the key.
    /// - Parameter keys: names of the key, of which the first that is there counts.
    /// - Throws: ``PEFTError`` for a list of another length and a type that the family doesn't have.
    static func types(
        _ read: ConfigurationReader, keys: [String] = ["layer_types"], layers: Int, allowed: [String]
    ) throws -> [String]? {
        guard let key = keys.first(where: { read.json[$0] ?? .null != .null }), let value = read.json[key] else {
            return nil
        }
        let names = (value.array ?? []).compactMap(\.string)
        guard names.count == layers, names.count == value.array?.count else {
            throw PEFTError(
                "config.json: '\(key)' doesn't list a type for each of the \(layers) layers",
                remedy: "use a list of \(allowed.joined(separator: " and "))")
        }
        return try names.map { name in
            let current = ["mamba": "linear_attention", "attention": "full_attention"][name] ?? name
            guard allowed.contains(current) else {
                throw PEFTError(
                    "config.json: '\(key)' has '\(name)', which is not supported",
                    remedy: "use \(allowed.joined(separator: " or "))")
            }
            return current
        }
    }
}
