import CTorch

/// A matrix W[o, i] = scales[g, o] · (q[i, o] − zeros[g, o]) of packed integers, one grid for each output and group of
/// inputs, in GPTQ's layout.
public struct GroupQuantizedMatrix {
    /// int32 [inputs · bits / 32, outputs], lowest bits first along the inputs; those of 3 bits cross words.
    public let packed: Tensor
    /// [groups, outputs]
    public let scales: Tensor
    /// int32 [groups, outputs · bits / 32], packed along the outputs; or real numbers [groups, outputs].
    public let zeros: Tensor
    /// int32 [inputs], the group of each input; `nil` where input i is in group i / groupSize.
    public let order: Tensor?
    public let bits: Int
    public let groupSize: Int
    /// What is added to packed zeros.
    public let zeroOffset: Int

    public init(
        packed: Tensor, scales: Tensor, zeros: Tensor, order: Tensor? = nil, bits: Int, groupSize: Int,
        zeroOffset: Int
    ) {
        (self.packed, self.scales, self.zeros, self.order) = (packed, scales, zeros, order)
        (self.bits, self.groupSize, self.zeroOffset) = (bits, groupSize, zeroOffset)
    }

    /// x [..., inputs] · Wᵀ + bias → [..., outputs], computed in x's type by tiles: no dense copy is ever whole, in the
    /// backward pass neither. Gradients reach x alone.
    public func project(_ x: Tensor, bias: Tensor?) -> Tensor {
        wrap(
            ct_group_linear(
                x.pointer, packed.pointer, scales.pointer, zeros.pointer, order?.pointer, bias?.pointer,
                Int32(bits), Int64(groupSize), Int32(zeroOffset)))
    }

    /// W as numbers, [outputs, inputs].
    public func dense(as type: DType) -> Tensor {
        wrap(
            ct_group_dense(
                packed.pointer, scales.pointer, zeros.pointer, order?.pointer, Int32(bits), Int64(groupSize),
                Int32(zeroOffset), type.raw))
    }
}

extension Tensor {
    /// Unsigned integers of so many bits along `axis` of a matrix as int32 words, lowest bits first.
    public func packed(bits: Int, axis: Int) -> Tensor { wrap(ct_pack_bits(pointer, Int32(bits), Int32(axis))) }

    /// The integers (int32) that ``packed(bits:axis:)`` packed.
    public func unpacked(bits: Int, axis: Int) -> Tensor { wrap(ct_unpack_bits(pointer, Int32(bits), Int32(axis))) }

    /// Rounds a weight [outputs, inputs] to integers in groups of inputs.
    ///
    /// - Parameters:
    ///   - hessian: of the layer's squared error, [inputs, inputs]: what rounding a column loses is made up for in the
    ///     columns after it (Frantar et al. 2022, algorithm 1); `nil` rounds each number to the nearest.
    ///   - damping: the share of its mean diagonal that is added to the Hessian.
    /// - Returns: integers int32 [inputs, outputs], scales and zeros [groups, outputs] in double precision; scales are
    ///   halves, and zeros whole numbers from 1 on.
    public func roundedInGroups(
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
