import PEFTSupport
import Torch

/// A weight format that users name, with its settings, such as `nf4-double` or `int4-g32-gptq`.
package struct WeightFormat: Sendable, Equatable {
    /// Canonical name.
    package let name: String
    /// Dtype of a format of floats; `nil` if the format is quantized.
    package let dtype: DType?
    /// Whether projections that files store transposed have this format too.
    package let includesTransposed: Bool
    /// How matrices are converted while a model is loaded, one at a time; `nil` if they stay in the compute dtype or if
    /// GPTQ quantizes them.
    package let conversion: Conversion?
    /// The settings of group-wise integers; `nil` for other formats.
    package let groups: Groups?
    /// The settings of 4-bit blocks; `nil` for other formats.
    package let blocks: BlockQuantization?

    /// Converts a matrix; a meta matrix stays without values.
    package struct Conversion: Sendable {
        /// A projection's weight.
        package let weight: @Sendable (any LinearWeight) -> any LinearWeight
        /// The input embeddings or the output layer, from the file's values `[words, size]` and the compute dtype;
        /// `nil` for a dense weight in the compute dtype.
        package let vocabulary: @Sendable (_ stored: Tensor, _ dtype: DType) -> (any LinearWeight)?
    }

    package struct Groups: Sendable, Equatable {
        package let settings: GroupQuantization
        /// Whether GPTQ quantizes, which needs calibration samples; else values are rounded to nearest.
        package let usesGPTQ: Bool
    }

    /// A format of floats.
    init(_ name: String, dtype: DType, includesTransposed: Bool = true, conversion: Conversion? = nil) {
        (self.name, self.dtype, self.includesTransposed) = (name, dtype, includesTransposed)
        (self.conversion, groups, blocks) = (conversion, nil, nil)
    }

    /// A format that quantizes any matrix `[outputs, inputs]`.
    init(
        _ name: String, blocks: BlockQuantization? = nil, quantizing: @escaping @Sendable (Tensor) -> any LinearWeight
    ) {
        (self.name, self.blocks) = (name, blocks)
        conversion = Conversion(
            weight: { quantizing($0.dense(as: .float32)) }, vocabulary: { stored, _ in quantizing(stored) })
        (dtype, includesTransposed, groups) = (nil, true, nil)
    }

    /// Group-wise integers. Embeddings have no such format.
    init(_ name: String, groups: Groups) {
        (self.name, self.groups) = (name, groups)
        conversion =
            groups.usesGPTQ
            ? nil : Conversion(weight: { groups.settings.rounded($0) }, vocabulary: { _, _ in nil })
        (dtype, includesTransposed, blocks) = (nil, true, nil)
    }

    package static func == (a: WeightFormat, b: WeightFormat) -> Bool {
        (a.name, a.blocks, a.groups) == (b.name, b.blocks, b.groups)
    }

    package var isQuantized: Bool { dtype == nil }

    /// The name of dense weights of a dtype.
    static func name(of dtype: DType) -> String {
        switch dtype {
        case .float32: "fp32"
        case .bfloat16: "bf16"
        case .float16: "fp16"
        default: dtype.rawValue
        }
    }
}

// MARK: Names

extension WeightFormat {
    /// All formats that users name. To add one, add a line.
    static let families: [Family] = [.float32, .stored, .bfloat16, .nf4, .fp4, .int8, .groups]

    /// A format with its variants.
    struct Family: Sendable {
        /// Canonical names of the formats to which models are converted while they are loaded, as help and errors list
        /// them.
        let names: [String]
        /// How errors describe formats whose names they don't list.
        let summary: String?
        /// The same for those to which models are converted while they are loaded.
        let loadingSummary: String?
        /// Bits of group-wise integers; empty for other formats.
        let groupBits: [Int]
        /// The format of a lower-case name; `nil` if it is another family's.
        let parse: @Sendable (_ name: String, _ block: Int) -> WeightFormat?

        init(
            names: [String], summary: String? = nil, loadingSummary: String? = nil, groupBits: [Int] = [],
            parse: @escaping @Sendable (_ name: String, _ block: Int) -> WeightFormat?
        ) {
            (self.names, self.summary, self.loadingSummary) = (names, summary, loadingSummary)
            (self.groupBits, self.parse) = (groupBits, parse)
        }

        /// A single format.
        init(_ name: String, _ aliases: String..., format: WeightFormat) {
            self.init(names: [name]) { given, _ in
                let parts = given.split(separator: "-", maxSplits: 1).map(String.init)
                return parts.count == 1 && ([name] + aliases).contains(parts[0]) ? format : nil
            }
        }
    }

    /// Names of the formats to which models are converted while they are loaded.
    package static let loadingNames = families.flatMap(\.names)

    /// The quantized formats to which models are converted while they are loaded, without variants.
    package static let loadingQuantizers = families.compactMap { family in
        family.names.first.flatMap { family.parse($0, usualBlock) }
    }.filter(\.isQuantized)

    /// Names of group-wise integers without a group size, with their bits. One that is another format's name ends in `-groups`.
    package static let groupNames = families.flatMap(\.groupBits).map { bits in
        (name: loadingNames.contains("int\(bits)") ? "int\(bits)-groups" : "int\(bits)", bits: bits)
    }

    /// Block size of formats that have blocks, unless another is chosen.
    package static let usualBlock = 64

    /// - Parameters:
    ///   - name: a name of ``loadingNames``, or one of group-wise integers such as `int4-g32-gptq`.
    ///   - whileLoading: whether only formats are accepted to which models are converted while they are loaded: those of
    ///     ``loadingNames``, and group-wise integers without GPTQ.
    /// - Throws: ``PEFTError`` for another name.
    package init(_ name: String, block: Int = usualBlock, whileLoading: Bool = false) throws {
        self = try Self.named(name, block: block, whileLoading: whileLoading, in: Self.families)
    }

    /// The format with a name in a table of formats.
    static func named(
        _ name: String, block: Int = usualBlock, whileLoading: Bool = false, in families: [Family]
    ) throws -> WeightFormat {
        let lowered = name.lowercased()
        let formats = families.lazy.compactMap { $0.parse(lowered, block) }
        guard let format = formats.first(where: { $0.groups?.usesGPTQ != true || !whileLoading }) else {
            let names = families.flatMap(\.names)
            let others = families.compactMap { whileLoading ? $0.loadingSummary : $0.summary }
            throw PEFTError(
                "unknown weight format '\(name)'",
                remedy: (nearestName(to: name, in: names).map { "did you mean \($0)? " } ?? "")
                    + "use one of \(([names.joined(separator: ", ")] + others).joined(separator: ", or "))"
            )
        }
        return format
    }
}
