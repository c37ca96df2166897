/// Settings of group-wise integer quantization.
package struct GroupQuantization: Sendable, Equatable {
    /// The supported bits per weight.
    package static let supportedBits = [2, 3, 4, 8]

    /// Bits per weight, one of ``supportedBits``.
    package var bits: Int
    /// Inputs that share a scale and a zero point; `nil` for all inputs (per-channel).
    package var groupSize: Int?
    /// Whether the zero point is the middle of the grid.
    package var isSymmetric: Bool
    /// Difference between a zero point and its stored value: 1 in GPTQ's first format, 0 in its second.
    package var zeroOffset: Int

    package init(bits: Int, groupSize: Int?, isSymmetric: Bool = false, zeroOffset: Int = 1) {
        (self.bits, self.groupSize) = (bits, groupSize)
        (self.isSymmetric, self.zeroOffset) = (isSymmetric, zeroOffset)
    }

    /// Number of values that fill whole words.
    package var block: Int { bits == 3 ? 32 : 32 / bits }

    /// Number of groups of `inputs` inputs.
    package func groups(of inputs: Int) -> Int {
        guard let groupSize, groupSize > 0 else { return 1 }
        return (inputs + groupSize - 1) / groupSize
    }

    /// Why a matrix of this shape can't be quantized with these settings; `nil` if it can.
    package func refusal(outputs: Int, inputs: Int) -> String? {
        // The kernels process 32 inputs at a time.
        if !inputs.isMultiple(of: 32) { return "\(inputs) inputs are not a multiple of 32" }
        if !outputs.isMultiple(of: block) { return "\(outputs) outputs are not a multiple of \(block)" }
        if let groupSize, !inputs.isMultiple(of: groupSize) {
            return "\(inputs) inputs are not a multiple of the group size \(groupSize)"
        }
        return nil
    }
}

extension GroupQuantization {
    /// A weight rounded to nearest, without values on the meta device; the weight itself if it doesn't fill whole words and
    /// groups.
    func rounded(_ weight: any LinearWeight) -> any LinearWeight {
        guard refusal(outputs: weight.outputs, inputs: weight.inputs) == nil else { return weight }
        guard weight.parameters.first?.parameter.tensor.device != .meta else {
            return GroupQuantizedWeight(outputs: weight.outputs, inputs: weight.inputs, settings: self)
        }
        return (try? GroupQuantizedWeight(rounding: weight.dense(as: .float32), to: self)) ?? weight
    }

    /// The matrices of experts rounded to nearest, in the same way.
    package func rounded(_ weight: any ExpertWeight) -> any ExpertWeight {
        guard refusal(outputs: weight.outputs, inputs: weight.inputs) == nil else { return weight }
        guard weight.parameters.first?.parameter.tensor.device != .meta else {
            return GroupedExperts(
                experts: weight.experts, outputs: weight.outputs, inputs: weight.inputs, settings: self)
        }
        return (try? GroupedExperts(rounding: weight.dense(as: .float32), to: self)) ?? weight
    }
}
