import CTorch

/// The data type of a tensor's elements.
public enum DType: String, CaseIterable, Sendable {
    case uint8, int8, int16, int32, int64, float16, float32, float64, bool, bfloat16

    var raw: CTDType {
        switch self {
        case .uint8: CT_UINT8
        case .int8: CT_INT8
        case .int16: CT_INT16
        case .int32: CT_INT32
        case .int64: CT_INT64
        case .float16: CT_FLOAT16
        case .float32: CT_FLOAT32
        case .float64: CT_FLOAT64
        case .bool: CT_BOOL
        case .bfloat16: CT_BFLOAT16
        }
    }

    init?(raw: CTDType) {
        guard let type = DType.allCases.first(where: { $0.raw == raw }) else { return nil }
        self = type
    }

    /// Size of one element in bytes.
    package var size: Int {
        switch self {
        case .uint8, .int8, .bool: 1
        case .int16, .float16, .bfloat16: 2
        case .int32, .float32: 4
        case .int64, .float64: 8
        }
    }

    /// Whether values of the type may be fractions.
    package var isFloatingPoint: Bool {
        switch self {
        case .float16, .bfloat16, .float32, .float64: true
        default: false
        }
    }
}
