import CTorch

/// A quantized matrix in GPTQ's layout, W[o, i] = scales[g, o] · (q[i, o] − zeros[g, o]), with one grid for each
/// output and group of inputs.
package struct GroupQuantizedMatrix {
    /// int32 `[inputs · bits / 32, outputs]`, lowest bits first along the inputs; 3-bit integers cross words.
    package let packed: Tensor
    /// `[groups, outputs]`
    package let scales: Tensor
    /// Zero points: int32 `[groups, outputs · bits / 32]`, packed along the outputs; or floating-point `[groups,
    /// outputs]`.
    package let zeros: Tensor
    /// Group index of each input, int32 `[inputs]`; `nil` if input i is in group i / groupSize.
    package let order: Tensor?
    package let bits: Int
    package let groupSize: Int
    /// Added to packed zero points.
    package let zeroOffset: Int

    package init(
        packed: Tensor, scales: Tensor, zeros: Tensor, order: Tensor? = nil, bits: Int, groupSize: Int,
        zeroOffset: Int
    ) {
        (self.packed, self.scales, self.zeros, self.order) = (packed, scales, zeros, order)
        (self.bits, self.groupSize, self.zeroOffset) = (bits, groupSize, zeroOffset)
    }

    /// x `[..., inputs]` -> x Wᵀ + bias `[..., outputs]`, computed in x's dtype; W is dequantized tile by tile, also
    /// in the backward pass. Gradients flow to x only.
    package func project(_ x: Tensor, bias: Tensor?) -> Tensor {
        withRaw { wrap(ct_group_linear(x.pointer, $0, bias?.pointer)) }
    }

    /// The dequantized matrix, `[outputs, inputs]`.
    package func dense(as type: DType) -> Tensor {
        withRaw { wrap(ct_group_dense($0, type.raw)) }
    }

    /// ``Functions/linearCrossEntropy(hidden:weight:bias:targets:scale:softcap:labelSmoothing:)`` with W `[vocabulary,
    /// size]`, which is dequantized tile by tile. Gradients flow to `hidden` and the bias.
    package func crossEntropy(
        hidden: Tensor, bias: Tensor? = nil, targets: Tensor, scale: Double = 1, softcap: Double? = nil,
        labelSmoothing: Double = 0
    ) -> Tensor {
        withRaw {
            wrap(
                ct_group_cross_entropy(
                    hidden.pointer, $0, bias?.pointer, targets.pointer, scale, labelSmoothing, softcap ?? 0))
        }
    }

    /// The matrix as C reads it, valid while it exists.
    var raw: CTGroupMatrix {
        CTGroupMatrix(
            packed: packed.pointer, scales: scales.pointer, zeros: zeros.pointer, order: order?.pointer,
            bits: Int32(bits), zero_offset: Int32(zeroOffset), group_size: Int64(groupSize))
    }

    private func withRaw<Result>(_ body: (UnsafePointer<CTGroupMatrix>) -> Result) -> Result {
        withExtendedLifetime(self) { withUnsafePointer(to: raw, body) }
    }
}

extension Tensor {
    /// Packs unsigned integers of `bits` bits along `axis` of a matrix into int32 words, lowest bits first.
    package func packed(bits: Int, axis: Int) -> Tensor { wrap(ct_pack_bits(pointer, Int32(bits), Int32(axis))) }

    /// Unpacks what ``packed(bits:axis:)`` packed, to int32.
    package func unpacked(bits: Int, axis: Int) -> Tensor { wrap(ct_unpack_bits(pointer, Int32(bits), Int32(axis))) }

    /// Quantizes a weight `[outputs, inputs]` to group-wise integers.
    ///
    /// - Parameters:
    ///   - hessian: Hessian of the layer's squared error, `[inputs, inputs]`, for GPTQ, which compensates the
    ///     rounding error of each column in later columns (Frantar et al. 2022, algorithm 1); `nil` for
    ///     round-to-nearest.
    ///   - damping: fraction of the Hessian's mean diagonal that is added to its diagonal.
    /// - Returns: integers int32 `[inputs, outputs]`; scales and zero points `[groups, outputs]` in fp64. Scales are
    ///   representable in fp16, and zero points are integers from 1.
    package func roundedInGroups(
        bits: Int, groupSize: Int, isSymmetric: Bool, hessian: Tensor? = nil, damping: Double = 0.01
    ) -> (integers: Tensor, scales: Tensor, zeros: Tensor) {
        var parts: (OpaquePointer?, OpaquePointer?, OpaquePointer?)
        check(
            ct_gptq(
                pointer, hessian?.pointer, Int32(bits), Int64(groupSize), isSymmetric, damping, &parts.0, &parts.1,
                &parts.2))
        func owned(_ pointer: OpaquePointer?) -> Tensor { Tensor(owning: pointer ?? ct_undefined()) }
        return (owned(parts.0), owned(parts.1), owned(parts.2))
    }
}
