import CTorch

/// Code book of 4-bit quantization.
package enum BlockCode: String, CaseIterable, Sendable {
    /// Quantiles of a normal distribution (Dettmers et al. 2023, appendix E).
    case nf4
    /// One sign, two exponent and one mantissa bits.
    case fp4

    var raw: CTBlockCode { self == .nf4 ? CT_NF4 : CT_FP4 }

    /// The values of the codes, float32 `[16]`.
    package var table: Tensor { wrap(ct_block_table(raw)) }
}

/// A matrix W `[outputs, inputs]`, quantized or in 16 bits, in row-major order.
package struct StoredMatrix {
    package let format: Format
    /// In the format's dtype.
    package let codes: Tensor
    /// float32, one per block of 4-bit codes (uint8 with double quantization) or per row of int8.
    package let scales: Tensor?
    /// The values of the 4-bit codes, float32 `[16]`.
    package let table: Tensor?
    package let nested: NestedScales?
    /// Block size of 4-bit codes; blocks continue across row boundaries.
    package let block: Int
    package let outputs: Int
    package let inputs: Int

    /// How the codes are stored.
    package enum Format: Sendable {
        /// uint8 `[⌈n / 2⌉, 1]`, two 4-bit codes per byte, the first in its high half.
        case blocks
        /// int8 `[outputs, inputs]`
        case rows
        /// 16-bit floats `[outputs, inputs]`
        case floats

        var raw: CTWeightFormat {
            switch self {
            case .blocks: CT_WEIGHT_BLOCKS
            case .rows: CT_WEIGHT_ROWS
            case .floats: CT_WEIGHT_FLOATS
            }
        }
    }

    /// Doubly quantized scales: table[byte] · scales[block / 256] + offset.
    package struct NestedScales {
        /// float32 `[⌈blocks / 256⌉]`
        package let scales: Tensor
        /// float32 `[256]`
        package let table: Tensor
        package let offset: Double

        package init(scales: Tensor, table: Tensor, offset: Double) {
            (self.scales, self.table, self.offset) = (scales, table, offset)
        }
    }

    package init(
        _ format: Format, codes: Tensor, scales: Tensor? = nil, table: Tensor? = nil, nested: NestedScales? = nil,
        block: Int = 64, outputs: Int, inputs: Int
    ) {
        self.format = format
        (self.codes, self.scales, self.table, self.nested) = (codes, scales, table, nested)
        (self.block, self.outputs, self.inputs) = (block, outputs, inputs)
    }

    /// Valid while this value exists.
    var raw: CTStoredMatrix {
        CTStoredMatrix(
            format: format.raw, codes: codes.pointer, scales: scales?.pointer, table: table?.pointer,
            nested_scales: nested?.scales.pointer, nested_table: nested?.table.pointer,
            offset: nested?.offset ?? 0, block: Int64(block), outputs: Int64(outputs), inputs: Int64(inputs))
    }

    private func withRaw<Result>(_ body: (UnsafePointer<CTStoredMatrix>) -> Result) -> Result {
        withExtendedLifetime((codes, scales, table, nested)) {
            var raw = raw
            return withUnsafePointer(to: &raw, body)
        }
    }

    /// x `[..., inputs]` -> x Wᵀ + bias `[..., outputs]` in x's dtype; W is dequantized tile by tile, also in the
    /// backward pass. Gradients flow to x and the bias.
    package func project(_ x: Tensor, bias: Tensor?) -> Tensor {
        withRaw { wrap(ct_stored_linear(x.pointer, $0, bias?.pointer)) }
    }

    /// Dequantizes rows `ids` `[...]` (int64) -> `[..., inputs]`.
    package func rows(_ ids: Tensor, as type: DType) -> Tensor {
        withRaw { wrap(ct_stored_rows($0, ids.pointer, type.raw)) }
    }

    /// ``Functions/linearCrossEntropy(hidden:weight:bias:targets:scale:softcap:labelSmoothing:)`` with W `[vocabulary,
    /// size]`, which is dequantized tile by tile. Gradients flow to `hidden` and the bias.
    package func crossEntropy(
        hidden: Tensor, bias: Tensor? = nil, targets: Tensor, scale: Double = 1, softcap: Double? = nil,
        labelSmoothing: Double = 0
    ) -> Tensor {
        withRaw {
            wrap(
                ct_stored_cross_entropy(
                    hidden.pointer, $0, bias?.pointer, targets.pointer, scale, labelSmoothing, softcap ?? 0))
        }
    }

    /// The dequantized matrix, `[outputs, inputs]`.
    package func dense(as type: DType) -> Tensor { withRaw { wrap(ct_stored_dense($0, type.raw)) } }
}

extension StoredMatrix {
    /// Quantizes a weight `[outputs, inputs]` to 4-bit codes in blocks, on the CPU.
    ///
    /// - Parameters:
    ///   - block: block size; a block's scale is its absmax.
    ///   - isDouble: whether the scales are quantized to bytes too (double quantization; Dettmers et al. 2023,
    ///     section 3).
    package static func rounding(_ weight: Tensor, to code: BlockCode, block: Int, isDouble: Bool) -> StoredMatrix {
        var (codes, scales): (OpaquePointer?, OpaquePointer?)
        check(ct_quantize_blocks(weight.pointer, code.raw, Int64(block), &codes, &scales))
        let peaks = owned(scales)
        var nested: NestedScales?
        var stored = peaks
        if isDouble {
            var (bytes, largest, table): (OpaquePointer?, OpaquePointer?, OpaquePointer?)
            var offset = 0.0
            check(ct_quantize_scales(peaks.pointer, &bytes, &largest, &table, &offset))
            stored = owned(bytes)
            nested = NestedScales(scales: owned(largest), table: owned(table), offset: offset)
        }
        return StoredMatrix(
            .blocks, codes: owned(codes), scales: stored, table: code.table, nested: nested, block: block,
            outputs: weight.dim(0), inputs: weight.dim(1))
    }

    /// Quantizes a weight `[outputs, inputs]` to int8 with a scale per row (Dettmers et al. 2022), on the CPU.
    package static func roundingRows(_ weight: Tensor) -> StoredMatrix {
        var (codes, scales): (OpaquePointer?, OpaquePointer?)
        check(ct_quantize_rows(weight.pointer, &codes, &scales))
        return StoredMatrix(
            .rows, codes: owned(codes), scales: owned(scales), outputs: weight.dim(0), inputs: weight.dim(1))
    }

    private static func owned(_ pointer: OpaquePointer?) -> Tensor { Tensor(owning: pointer ?? ct_undefined()) }
}
