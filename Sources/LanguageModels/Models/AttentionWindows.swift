import PEFTSupport

/// Sliding-window sizes of a decoder's layers.
enum AttentionWindows {
    /// The window of each layer, from `layer_types` if the file has them.
    ///
    /// - Parameters:
    ///   - window: size of the sliding windows.
    ///   - slides: whether a layer has a sliding window by default.
    /// - Throws: ``PEFTError`` for an unknown layer type or a sliding layer without a window size.
    static func read(_ read: ConfigurationReader, layers: Int, window: Int?, slides: (Int) -> Bool) throws -> [Int?] {
        let types = try types(read, layers: layers) ?? (0..<layers).map { window != nil && slides($0) }
        return try types.map { isSliding in
            guard isSliding else { return nil }
            guard let window else {
                throw PEFTError(
                    "config.json: 'layer_types' has sliding layers, but there is no 'sliding_window'",
                    remedy: "set 'sliding_window', and 'use_sliding_window' if the family has it")
            }
            return window
        }
    }

    /// Whether each layer has a sliding window, as the file lists them.
    private static func types(_ read: ConfigurationReader, layers: Int) throws -> [Bool]? {
        guard let value = read.json["layer_types"], value != .null else { return nil }
        let names = (value.array ?? []).compactMap(\.string)
        guard names.count == layers, names.count == value.array?.count else {
            throw PEFTError(
                "config.json: 'layer_types' doesn't list a type for each of the \(layers) layers",
                remedy: "use a list of full_attention and sliding_attention")
        }
        return try names.map { name in
            switch name {
            case "full_attention": return false
            case "sliding_attention": return true
            default:
                throw PEFTError(
                    "config.json: 'layer_types' has '\(name)', which is not supported",
                    remedy: "use full_attention or sliding_attention")
            }
        }
    }
}
