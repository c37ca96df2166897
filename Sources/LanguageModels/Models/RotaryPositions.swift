import Foundation
import PEFTSupport
import Torch

/// Rotary position embeddings (RoPE; Su et al. 2021, RoFormer) in the variants of published models: the frequencies
/// of the dimension pairs of a head, and their scaling for contexts longer than in pretraining.
///
/// A class, so that layers that share one also share its cosines and sines.
final class RotaryPositions: Sendable {
    /// The settings that it was created from.
    let settings: Settings
    /// Angle per position of each pair.
    let frequencies: [Double]
    /// Frequencies for batches whose longest sequence has more than `switchLength` tokens (longrope).
    let longFrequencies: [Double]?
    let switchLength: Int
    /// Factor of the cosines and sines.
    let attentionFactor: Double
    /// Maximum sequence length; `nil` without a limit.
    let limit: Int?

    private init(
        _ settings: Settings, frequencies: [Double], longFrequencies: [Double]? = nil, switchLength: Int = 0,
        attentionFactor: Double = 1,
        limit: Int? = nil
    ) {
        self.settings = settings
        (self.frequencies, self.longFrequencies, self.switchLength) = (frequencies, longFrequencies, switchLength)
        (self.attentionFactor, self.limit) = (attentionFactor, limit)
    }

    /// Applies RoPE to x `[tokens, heads, size]` with cosines and sines `[tokens, pairs]`.
    func rotate(_ x: Tensor, _ rotation: (cosines: Tensor, sines: Tensor)) -> Tensor {
        Functions.rotary(
            x, cosines: rotation.cosines, sines: rotation.sines, interleaved: settings.pairsNeighbors)
    }

    /// Cosines and sines `[tokens, pairs]` for positions `[tokens]`, where the longest sequence has `longest` tokens.
    func rotation(at positions: Tensor, longest: Int, dtype: DType) -> (cosines: Tensor, sines: Tensor) {
        if let limit, longest > limit {
            reportFailure(
                PEFTError(
                    "a sequence of \(longest) tokens is longer than the \(limit) positions of a model with 'dynamic' RoPE,"
                        + " whose angles would depend on the longest sequence seen so far",
                    remedy: "use shorter sequences, or a model with yarn, llama3 or linear scaling"))
        }
        // As in transformers, the longest sequence determines the frequencies of the whole batch.
        let frequencies = longest > switchLength ? longFrequencies ?? frequencies : frequencies
        let angles =
            positions.to(.float32).unsqueezed(1)
            * Tensor(frequencies.map(Float.init), shape: [1, frequencies.count], device: positions.device)
        func scaled(_ x: Tensor) -> Tensor { (attentionFactor == 1 ? x : x * attentionFactor).to(dtype) }
        return (scaled(angles.cos()), scaled(angles.sin()))
    }
}

extension RotaryPositions {
    /// RoPE settings of one type of layer.
    struct Settings: Sendable {
        /// `rope_parameters`, or `rope_scaling` in older files.
        var parameters: JSON?
        /// RoPE type: `default`, `linear`, …
        var kind: String
        var base: Double
        /// Number of dimensions of a head that are rotated.
        var size: Int
        var positions: Int
        /// Context length in pretraining, if the file has it outside the parameters.
        var originalPositions: Int?
        /// Whether dimensions 2i and 2i + 1 of a head are a pair, as in the paper, rather than i and i + d/2.
        var pairsNeighbors = false
        /// Whether one more dimension is rotated if ``size`` is odd, as in transformers, rather than none.
        var roundsUp = false
        /// Whether the type `proportional`, which rotates a part of the pairs, is supported.
        var allowsProportional = false
    }

    /// Reads `rope_parameters` or, in older files, `rope_scaling` and `rope_theta`.
    ///
    /// - Parameters:
    ///   - base: default of θ.
    ///   - allowsPartial: whether the family supports rotating a part of each head.
    ///   - originalPositions: the family's default of the pretraining context length.
    ///   - pairsNeighbors: whether neighboring dimensions are pairs.
    ///   - rename: maps older type names; throws for types that the family doesn't support.
    ///   - adjust: changes the settings as only the family does.
    /// - Throws: ``PEFTError`` for an unsupported RoPE type or a missing parameter.
    convenience init(
        _ read: ConfigurationReader, headSize: Int, base: Double = 10_000, allowsPartial: Bool = false,
        originalPositions: Int? = nil, pairsNeighbors: Bool = false, rename: (String) throws -> String = { $0 },
        adjust: (inout Settings) throws -> Void = { _ in }
    ) throws {
        for key in ["rope_scaling", "rope_parameters"] { try Self.checkParameters(read.json[key], key) }
        let old = read.filledObject("rope_scaling")
        let parameters = old ?? read.json["rope_parameters"]
        let share = try Self.partialFactor(parameters, read)
        guard allowsPartial || share == 1 else {
            throw PEFTError(
                "config.json: 'partial_rotary_factor' is \(share), but this family applies RoPE to whole heads",
                remedy: "check 'model_type'")
        }
        let theta = try read.number("rope_theta", default: base)
        var settings = try Settings(
            parameters: parameters, kind: rename(Self.kind(parameters)),
            base: parameters?["rope_theta"]?.double ?? theta, size: Int(Double(headSize) * share),
            positions: read.integer("max_position_embeddings", .length, default: 2048),
            originalPositions: originalPositions ?? read.json["original_max_position_embeddings"]?.int,
            pairsNeighbors: pairsNeighbors)
        try adjust(&settings)
        try self.init(settings)
    }

    /// - Throws: ``PEFTError`` for parameters that aren't an object.
    private static func checkParameters(_ parameters: JSON?, _ key: String) throws {
        guard let parameters, parameters != .null, parameters.object == nil else { return }
        throw PEFTError(
            "config.json: '\(key)' is \(parameters.text(indent: nil))", remedy: "use an object with 'rope_type'")
    }

    /// Reads the RoPE settings of one layer type, if there are several (Gemma 3). Older files have `rope_scaling` for
    /// full-attention layers, and a key of θ.
    ///
    /// - Parameter baseKey: the older files' key of θ, if they have one.
    convenience init(
        _ read: ConfigurationReader, headSize: Int, layers type: String, base: Double, baseKey: String?,
        allowsProportional: Bool = false
    ) throws {
        for key in ["rope_scaling", "rope_parameters"] { try Self.checkParameters(read.json[key], key) }
        let isFull = type == "full_attention"
        var parameters = read.json["rope_parameters"]?[type].flatMap { $0.object }
        if isFull, let old = read.json["rope_scaling"]?.object {
            parameters = (parameters ?? [:]).merging(old) { $1 }
        }
        // transformers looks for YaRN's 'truncate' next to the layer types, where no file has it.
        parameters?["truncate"] = nil
        let all = parameters.map { JSON.object($0) }
        let theta = try baseKey.map { try read.number($0, default: base) } ?? base
        let share = try Self.partialFactor(all, read)
        guard share == 1 || allowsProportional && Self.kind(all) == "proportional" else {
            throw PEFTError(
                "config.json: 'partial_rotary_factor' is not 1, but this family applies RoPE to whole heads",
                remedy: "check 'model_type'")
        }
        try self.init(
            Settings(
                parameters: all, kind: Self.kind(all), base: all?["rope_theta"]?.double ?? theta, size: headSize,
                positions: read.integer("max_position_embeddings", .length, default: 131_072), originalPositions: nil,
                allowsProportional: allowsProportional))
    }

    private static func kind(_ parameters: JSON?) -> String {
        (parameters?["rope_type"] ?? parameters?["type"])?.string ?? "default"
    }

    private static func partialFactor(_ parameters: JSON?, _ read: ConfigurationReader) throws -> Double {
        let share =
            try parameters?["partial_rotary_factor"]?.double ?? read.number("partial_rotary_factor", default: 1)
        guard share > 0, share <= 1 else {
            throw PEFTError(
                "config.json: 'partial_rotary_factor' is \(share)", remedy: "use a value above 0 and up to 1")
        }
        return share
    }

    /// θ^(−2i/d), scaled by one of transformers' methods.
    convenience init(_ settings: Settings) throws {
        guard settings.size >= 2, settings.size.isMultiple(of: 2) || settings.roundsUp else {
            throw PEFTError(
                "config.json: RoPE can't rotate \(settings.size) dimensions of a head, as 'head_dim' and"
                    + " 'partial_rotary_factor' imply",
                remedy: "check them; their product is to be an even number")
        }
        let pairs = (settings.size + 1) / 2
        let plain = (0..<pairs).map { Foundation.pow(settings.base, -2 * Double($0) / Double(settings.size)) }
        switch settings.kind {
        case "default":
            self.init(settings, frequencies: plain)
        case "proportional" where settings.allowsProportional:
            // The other pairs have the angle 0 (Gemma 4).
            let share = settings.parameters?["partial_rotary_factor"]?.double ?? 1
            let rotated = Int(share * Double(settings.size) / 2)
            let factor = settings.parameters?["factor"]?.double ?? 1
            guard factor > 0 else {
                throw PEFTError(
                    "config.json: the RoPE type 'proportional' has the factor \(factor)",
                    remedy: "use a number above 0")
            }
            self.init(settings, frequencies: plain.indices.map { $0 < rotated ? plain[$0] / factor : 0 })
        case "linear":
            let factor = try settings.number("factor")
            self.init(settings, frequencies: plain.map { $0 / factor })
        case "dynamic":
            // Up to the pretraining length the frequencies are unscaled.
            self.init(settings, frequencies: plain, limit: settings.positions)
        case "llama3":
            self.init(settings, frequencies: try settings.llama3(plain))
        case "yarn":
            self.init(
                settings, frequencies: try settings.yarn(plain), attentionFactor: try settings.yarnAttentionFactor())
        case "longrope":
            func stretched(_ key: String) throws -> [Double] {
                zip(plain, try settings.numbers(key, count: pairs)).map { $0 / $1 }
            }
            self.init(
                settings, frequencies: try stretched("short_factor"), longFrequencies: try stretched("long_factor"),
                switchLength: settings.original, attentionFactor: try settings.longropeAttentionFactor())
        case let kind:
            throw PEFTError(
                "config.json: the RoPE type '\(kind)' is not supported",
                remedy: "use one of default, linear, dynamic, yarn, llama3 and longrope")
        }
    }
}

extension RotaryPositions.Settings {
    /// Context length in pretraining.
    var original: Int {
        originalPositions ?? parameters?["original_max_position_embeddings"]?.int ?? positions
    }

    /// Ratio of the maximum context length to that in pretraining.
    private var ratio: Double {
        parameters?["factor"]?.double ?? Double(positions) / Double(original)
    }

    func number(_ key: String) throws -> Double {
        guard let number = parameters?[key]?.double, number > 0 else {
            throw PEFTError(
                "config.json: the RoPE type '\(kind)' has no '\(key)'",
                remedy: "add it as a number above 0")
        }
        return number
    }

    func numbers(_ key: String, count: Int) throws -> [Double] {
        let numbers = (parameters?[key]?.array ?? []).compactMap(\.double)
        guard numbers.count == count, numbers.allSatisfy({ $0 > 0 }) else {
            throw PEFTError(
                "config.json: the RoPE type '\(kind)' has \(numbers.count) values in '\(key)'",
                remedy: "list \(count) values, all above 0")
        }
        return numbers
    }

    /// Llama 3.1: long wavelengths are divided by the factor, short ones unchanged, those between interpolated.
    func llama3(_ plain: [Double]) throws -> [Double] {
        let (factor, low, high) = try (number("factor"), number("low_freq_factor"), number("high_freq_factor"))
        let original = Double(original)
        return plain.map { frequency in
            let length = 2 * Double.pi / frequency
            if length < original / high { return frequency }
            if length > original / low { return frequency / factor }
            let smooth = (original / length - low) / (high - low)
            return (1 - smooth) * frequency / factor + smooth * frequency
        }
    }

    /// YaRN (Peng et al. 2023, section 3.2): pairs with many rotations within the pretraining length are unchanged,
    /// those with few are divided by the factor, with a linear ramp between.
    func yarn(_ plain: [Double]) throws -> [Double] {
        let factor = ratio
        // The pair with this many rotations within the pretraining length.
        func pair(turns: Double) -> Double {
            Double(size) * Foundation.log(Double(original) / (turns * 2 * .pi)) / (2 * Foundation.log(base))
        }
        func positive(_ key: String, default fallback: Double) -> Double {
            parameters?[key]?.double.flatMap { $0 == 0 ? nil : $0 } ?? fallback
        }
        var low = pair(turns: positive("beta_fast", default: 32))
        var high = pair(turns: positive("beta_slow", default: 1))
        if parameters?["truncate"]?.bool ?? true { (low, high) = (low.rounded(.down), high.rounded(.up)) }
        low = max(low, 0)
        high = min(high, Double(size - 1))
        if low == high { high += 0.001 }
        return plain.enumerated().map { index, frequency in
            let ramp = min(max((Double(index) - low) / (high - low), 0), 1)
            return frequency / factor * ramp + frequency * (1 - ramp)
        }
    }

    /// YaRN, eq. 22: √(1/t) = 0.1 ln s + 1, unless the file specifies it.
    func yarnAttentionFactor() throws -> Double {
        if let given = parameters?["attention_factor"]?.double { return given }
        let ratio = ratio
        func factor(_ weight: Double) -> Double { ratio <= 1 ? 1 : 0.1 * weight * Foundation.log(ratio) + 1 }
        guard let scale = parameters?["mscale"]?.double, let all = parameters?["mscale_all_dim"]?.double,
            scale != 0, all != 0
        else { return factor(1) }
        return factor(scale) / factor(all)
    }

    /// LongRoPE (Ding et al. 2024): √(1 + ln s / ln L) with s times the pretraining length L.
    func longropeAttentionFactor() throws -> Double {
        if let given = parameters?["attention_factor"]?.double { return given }
        let ratio = ratio
        guard ratio > 1 else { return 1 }
        return (1 + Foundation.log(ratio) / Foundation.log(Double(original))).squareRoot()
    }
}
