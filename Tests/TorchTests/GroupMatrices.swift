@testable import Torch

extension GroupQuantizedMatrix {
    /// A weight `[outputs, inputs]` rounded to groups, with packed zero points, or floats if they don't fill whole words.
    static func rounding(_ weight: Tensor, bits: Int, groupSize: Int = 32) -> GroupQuantizedMatrix {
        let (integers, scales, zeros) = weight.roundedInGroups(bits: bits, groupSize: groupSize, isSymmetric: false)
        let fills = (weight.dim(0) * bits).isMultiple(of: 32)
        return GroupQuantizedMatrix(
            packed: integers.packed(bits: bits, axis: 0), scales: scales.to(.float16),
            zeros: fills ? (zeros - 1).to(.int32).packed(bits: bits, axis: 1) : zeros.to(.float32), bits: bits,
            groupSize: groupSize, zeroOffset: 1)
    }
}
