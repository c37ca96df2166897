import CTorch

/// Sixteen numbers that 4-bit codes mean.
public enum BlockCode: String, CaseIterable, Sendable {
    /// Quantiles of a normal distribution (Dettmers et al. 2023, appendix E).
    case nf4
    /// A sign, two bits of exponent and one of fraction.
    case fp4

    var raw: CTBlockCode { self == .nf4 ? CT_NF4 : CT_FP4 }

    /// The numbers, float32 [16].
    public var table: Tensor { wrap(ct_block_table(raw)) }
}

/// A matrix W [outputs, inputs] that is stored in fewer bits than it is multiplied in, by rows.
public struct StoredMatrix {
    /// uint8 [⌈n / 2⌉, 1], two 4-bit codes a byte, the first in its high half; int8 [outputs, inputs]; or 16-bit floats.
    public let codes: Tensor
    /// float32, one for each block of 4-bit codes (or uint8 where they are rounded too) or each row of int8.
    public let scales: Tensor?
    /// What 4-bit codes mean, float32 [16].
    public let table: Tensor?
    public let nested: NestedScales?
    /// 4-bit codes that share a scale, counted along the rows and on into the next.
    public let block: Int
    public let outputs: Int
    public let inputs: Int

    /// How scales are stored as bytes: table[byte] · scales[block / 256] + offset.
    public struct NestedScales {
        /// float32 [⌈blocks / 256⌉]
        public let scales: Tensor
        /// float32 [256]
        public let table: Tensor
        public let offset: Double

        public init(scales: Tensor, table: Tensor, offset: Double) {
            (self.scales, self.table, self.offset) = (scales, table, offset)
        }
    }

    public init(
        codes: Tensor, scales: Tensor? = nil, table: Tensor? = nil, nested: NestedScales? = nil, block: Int = 64,
        outputs: Int, inputs: Int
    ) {
        (self.codes, self.scales, self.table, self.nested) = (codes, scales, table, nested)
        (self.block, self.outputs, self.inputs) = (block, outputs, inputs)
    }

    /// Valid while this value lives.
    var raw: CTStoredMatrix {
        CTStoredMatrix(
            codes: codes.pointer, scales: scales?.pointer, table: table?.pointer,
            nested_scales: nested?.scales.pointer, nested_table: nested?.table.pointer,
            offset: nested?.offset ?? 0, block: Int64(block), outputs: Int64(outputs), inputs: Int64(inputs))
    }

    private func withRaw<Result>(_ body: (UnsafePointer<CTStoredMatrix>) -> Result) -> Result {
        withExtendedLifetime((codes, scales, table, nested)) {
            var raw = raw
            return withUnsafePointer(to: &raw, body)
        }
    }

    /// x [..., inputs] · Wᵀ + bias → [..., outputs] in x's type, by tiles: no dense copy is ever whole, in the backward
    /// pass neither. Gradients reach x and the bias.
    public func project(_ x: Tensor, bias: Tensor?) -> Tensor {
        withRaw { wrap(ct_stored_linear(x.pointer, $0, bias?.pointer)) }
    }

    /// Rows `ids` [...] (int64) as numbers, [..., inputs].
    public func rows(_ ids: Tensor, as type: DType) -> Tensor {
        withRaw { wrap(ct_stored_rows($0, ids.pointer, type.raw)) }
    }

    /// ``Functions/linearCrossEntropy(hidden:weight:targets:scale:softcap:labelSmoothing:)`` by W [vocabulary, size], of
    /// which no dense copy is ever whole. Gradients reach `hidden`.
    public func crossEntropy(
        hidden: Tensor, targets: Tensor, scale: Double = 1, softcap: Double? = nil, labelSmoothing: Double = 0
    ) -> Tensor {
        withRaw {
            wrap(
                ct_stored_cross_entropy(
                    hidden.pointer, $0, targets.pointer, scale, labelSmoothing, softcap ?? 0))
        }
    }

    /// W as numbers, [outputs, inputs].
    public func dense(as type: DType) -> Tensor { withRaw { wrap(ct_stored_dense($0, type.raw)) } }
}

extension StoredMatrix {
    /// A weight [outputs, inputs] rounded to 4-bit codes in blocks, on the CPU.
    ///
    /// - Parameters:
    ///   - block: numbers that share a scale, the largest of them.
    ///   - isDouble: whether the scales are rounded to bytes themselves (Dettmers et al. 2023, section 3).
    public static func rounding(_ weight: Tensor, to code: BlockCode, block: Int, isDouble: Bool) -> StoredMatrix {
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
            codes: owned(codes), scales: stored, table: code.table, nested: nested, block: block,
            outputs: weight.dim(0), inputs: weight.dim(1))
    }

    /// A weight [outputs, inputs] rounded to int8 with a scale for each row (Dettmers et al. 2022), on the CPU.
    public static func roundingRows(_ weight: Tensor) -> StoredMatrix {
        var (codes, scales): (OpaquePointer?, OpaquePointer?)
        check(ct_quantize_rows(weight.pointer, &codes, &scales))
        return StoredMatrix(
            codes: owned(codes), scales: owned(scales), outputs: weight.dim(0), inputs: weight.dim(1))
    }

    private static func owned(_ pointer: OpaquePointer?) -> Tensor { Tensor(owning: pointer ?? ct_undefined()) }
}
