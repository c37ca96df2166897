import PEFTSupport

/// Which layers attend to the keys and values of an earlier one.
enum SharedKeys {
    /// The source of each layer's keys and values: of the last `num_kv_shared_layers` the last layer of the same type before
    /// them; `nil` for a layer with keys of its own.
    /// - Throws: ``PEFTError`` if there is no such layer.
    static func sources(_ read: ConfigurationReader, windows: [Int?], shared: Int) throws -> [Int?] {
        let count = try read.integer("num_kv_shared_layers", default: shared, in: 0...max(0, windows.count - 1))
        guard count < max(1, windows.count) else {
            throw PEFTError(
                "config.json: 'num_kv_shared_layers' is \(count), but the model has \(windows.count) layers",
                remedy: "set it as the model was trained")
        }
        let first = windows.count - count
        return try windows.indices.map { layer in
            guard layer >= first else { return nil }
            let source = (0..<first).last { (windows[$0] == nil) == (windows[layer] == nil) }
            guard let source else {
                throw PEFTError(
                    "config.json: 'num_kv_shared_layers' is \(count), but none of the other layers has the type of layer"
                        + " \(layer)",
                    remedy: "check 'layer_types'")
            }
            return source
        }
    }
}

extension ModuleNames {
    /// Whether a tensor is a key or value of a layer that has none of its own, as files of Gemma 3n and Gemma 4 have.
    func isOfSharedKeys(_ name: String, sources: [Int?]) -> Bool {
        let name = canonical(name)
        guard name.hasPrefix(prefix + ".layers.") else { return false }
        let parts = name.dropFirst(prefix.count + 1).split(separator: ".")
        guard parts.count > 3, let layer = Int(parts[1]), sources.indices.contains(layer), sources[layer] != nil,
            parts[2] == "self_attn"
        else { return false }
        return ["k_proj", "v_proj", "k_norm", "v_norm"].contains(parts[3])
    }
}
