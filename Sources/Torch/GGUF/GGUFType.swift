/// Storage type of a GGUF tensor: floats, or blocks of 32 or 256 values along a row, in groups with w = scale · (q −
/// zero) − minimum.
package enum GGUFType: UInt32, CaseIterable, Sendable {
    case f32 = 0
    case f16 = 1
    case q4_0 = 2
    case q4_1 = 3
    case q5_0 = 6
    case q5_1 = 7
    case q8_0 = 8
    case q2_K = 10
    case q3_K = 11
    case q4_K = 12
    case q5_K = 13
    case q6_K = 14
    case iq4_nl = 20
    case iq4_xs = 23
    case bf16 = 30
    /// 4-bit floats e2m1 with powers of two (Open Compute Project 2023).
    case mxfp4 = 39

    /// Names of other types, for error messages.
    private static let others: [UInt32: String] = [
        9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S",
        22: "IQ2_S", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0",
        35: "TQ2_0",
    ]

    /// llama.cpp's name of a type by its number.
    static func name(of raw: UInt32) -> String { GGUFType(rawValue: raw)?.name ?? others[raw] ?? "number \(raw)" }

    /// llama.cpp's name: `F16`, `Q4_0`, `Q4_K`.
    package var name: String { "\(self)".uppercased() }

    /// The dtype of an unquantized type; `nil` for blocks.
    package var plain: DType? {
        switch self {
        case .f32: .float32
        case .f16: .float16
        case .bf16: .bfloat16
        default: nil
        }
    }

    /// Number of values per block.
    package var block: Int {
        switch self {
        case .f32, .f16, .bf16: 1
        case .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .iq4_nl, .mxfp4: 32
        case .q2_K, .q3_K, .q4_K, .q5_K, .q6_K, .iq4_xs: 256
        }
    }

    /// Size of a block in bytes.
    package var bytes: Int {
        switch self {
        case .f32: 4
        case .f16, .bf16: 2
        case .q4_0: 18
        case .q4_1: 20
        case .q5_0: 22
        case .q5_1: 24
        case .q8_0: 34
        case .q2_K: 84
        case .q3_K: 110
        case .q4_K: 144
        case .q5_K: 176
        case .q6_K: 210
        case .iq4_nl: 18
        case .iq4_xs: 136
        case .mxfp4: 17
        }
    }

    /// Number of values of a block that share a scale.
    package var group: Int {
        switch self {
        case .q2_K, .q3_K, .q6_K: 16
        default: 32
        }
    }

    /// Zero point: subtracted from each integer, which is stored from 0.
    package var zero: Int {
        switch self {
        case .q4_0: 8
        case .q5_0: 16
        // The levels of IQ4 and MXFP4 are signed bytes.
        case .q8_0, .iq4_nl, .iq4_xs, .mxfp4: 128
        case .q3_K: 4
        case .q6_K: 32
        default: 0
        }
    }

    /// Dtype that holds the scales of groups exactly: blocks of 32 values have one fp16 scale (MXFP4 a power of two); blocks of 256
    /// multiply one by integers.
    package var scaleType: DType { block == 32 && self != .mxfp4 ? .float16 : .float32 }

    /// Whether groups have a minimum.
    package var hasMinimum: Bool { [.q4_1, .q5_1, .q2_K, .q4_K, .q5_K].contains(self) }

    /// Bits per packed integer, among the supported widths.
    package var packedBits: Int {
        switch self {
        case .q2_K: 2
        case .q3_K, .q4_0, .q4_1, .q4_K: 4
        default: 8
        }
    }
}
