import PEFTSupport
import Torch

/// Matrices of experts as packed integers with a scale and a zero point for each output and group of inputs: those of a
/// ``GroupQuantizedWeight`` for each expert, stacked.
package struct GroupedExperts: ExpertWeight {
    package let experts, outputs, inputs: Int
    package let settings: GroupQuantization
    /// int32 `[experts, inputs · bits / 32, outputs]`
    private let integers: Parameter
    /// int32 `[experts, groups, outputs · bits / 32]`
    private let packedZeros: Parameter
    /// float16 `[experts, groups, outputs]`
    private let scales: Parameter
    /// Group index of each input, int32 `[experts, inputs]`.
    private let order: Parameter
    private let knowledge = OrderKnowledge()

    /// Matrices that a file fills.
    package init(experts: Int, outputs: Int, inputs: Int, settings: GroupQuantization) {
        (self.experts, self.outputs, self.inputs, self.settings) = (experts, outputs, inputs, settings)
        let groups = settings.groups(of: inputs)
        func empty(_ shape: [Int], _ type: DType) -> Parameter {
            Parameter(.empty([experts] + shape, dtype: type, device: .meta))
        }
        integers = empty([inputs * settings.bits / 32, outputs], .int32)
        packedZeros = empty([groups, outputs * settings.bits / 32], .int32)
        scales = empty([groups, outputs], .float16)
        order = empty([inputs], .int32)
    }

    /// One matrix per expert, all of one shape and format.
    package init(stacking weights: [GroupQuantizedWeight]) {
        let first = weights[0]
        (experts, outputs, inputs, settings) = (weights.count, first.outputs, first.inputs, first.settings)
        func stacked(_ part: (GroupQuantizedWeight) -> Parameter) -> Parameter {
            Parameter(.concatenated(weights.map { part($0).tensor.unsqueezed(0) }, axis: 0))
        }
        integers = stacked { $0.integers }
        packedZeros = stacked { $0.packedZeros }
        scales = stacked { $0.scales }
        order = stacked { $0.order }
    }

    /// Quantizes matrices `[experts, outputs, inputs]` by round-to-nearest.
    /// - Throws: ``PEFTError`` if a matrix doesn't fill whole words and groups.
    package init(rounding dense: Tensor, to settings: GroupQuantization) throws {
        self.init(
            stacking: try (0..<dense.dim(0)).map { expert in
                let own = dense.narrowed(axis: 0, expert..<expert + 1).reshaped(dense.dim(1), dense.dim(2))
                return try GroupQuantizedWeight(rounding: own, to: settings)
            })
    }

    /// The matrix of one expert.
    package func expert(_ index: Int) -> GroupQuantizedWeight {
        func part(_ parameter: Parameter) -> Parameter {
            let tensor = parameter.tensor.narrowed(axis: 0, index..<index + 1)
            return Parameter(tensor.reshaped(Array(tensor.shape.dropFirst())))
        }
        return GroupQuantizedWeight(
            outputs: outputs, inputs: inputs, settings: settings, integers: part(integers),
            packedZeros: part(packedZeros), scales: part(scales), order: part(order))
    }

    package var parameters: [(key: String, parameter: Parameter)] {
        [("qweight", integers), ("qzeros", packedZeros), ("scales", scales), ("g_idx", order)]
    }
    private var groupSize: Int { settings.groupSize ?? inputs }
    private var hasPlainOrder: Bool { knowledge.isPlain(order.tensor, groupSize: groupSize, inputs: inputs) }
    package var matrices: ExpertMatrices {
        ExpertMatrices(
            .groups(
                GroupQuantizedMatrix(
                    packed: integers.tensor, scales: scales.tensor, zeros: packedZeros.tensor,
                    order: hasPlainOrder ? nil : order.tensor, bits: settings.bits, groupSize: groupSize,
                    zeroOffset: settings.zeroOffset)), experts: experts)
    }
    package func dense(as type: DType) -> Tensor {
        .concatenated((0..<experts).map { expert($0).dense(as: type).unsqueezed(0) }, axis: 0)
    }
    package var formatName: String { "group-wise integers" }
    package var precision: WeightPrecision { .quantized }
    package var declaration: WeightDeclaration? { .gptq(settings, zeroType: nil, hasOrder: !hasPlainOrder) }
    package func replacing(with dense: Tensor) throws -> any ExpertWeight {
        try GroupedExperts(rounding: dense.to(.float32), to: settings)
    }
}

/// Matrices of experts in AWQ's file format, which are repacked as ``GroupedExperts`` once their values are loaded.
package struct AWQExperts: ExpertWeight {
    package let experts, outputs, inputs: Int
    private let groupSize: Int?
    /// int32 `[experts, inputs, outputs / 8]`
    private let integers: Parameter
    /// int32 `[experts, groups, outputs / 8]`
    private let packedZeros: Parameter
    /// float16 `[experts, groups, outputs]`
    private let scales: Parameter

    package init(experts: Int, outputs: Int, inputs: Int, groupSize: Int?) {
        (self.experts, self.outputs, self.inputs, self.groupSize) = (experts, outputs, inputs, groupSize)
        let groups = GroupQuantization(bits: 4, groupSize: groupSize, zeroOffset: 0).groups(of: inputs)
        integers = Parameter(.empty([experts, inputs, outputs / 8], dtype: .int32, device: .meta))
        packedZeros = Parameter(.empty([experts, groups, outputs / 8], dtype: .int32, device: .meta))
        scales = Parameter(.empty([experts, groups, outputs], dtype: .float16, device: .meta))
    }

    package var parameters: [(key: String, parameter: Parameter)] {
        [("qweight", integers), ("qzeros", packedZeros), ("scales", scales)]
    }
    package var matrices: ExpertMatrices { repacked.matrices }
    package func dense(as type: DType) -> Tensor { repacked.dense(as: type) }
    package var formatName: String { "group-wise integers" }
    package var precision: WeightPrecision { .quantized }
    package func loaded() -> any ExpertWeight { repacked }
    package func replacing(with dense: Tensor) throws -> any ExpertWeight { try repacked.replacing(with: dense) }

    private var repacked: GroupedExperts {
        let settings = GroupQuantization(bits: 4, groupSize: groupSize, zeroOffset: 0)
        guard integers.tensor.device != .meta else {
            return GroupedExperts(experts: experts, outputs: outputs, inputs: inputs, settings: settings)
        }
        return GroupedExperts(
            stacking: (0..<experts).map { expert in
                func part(_ parameter: Parameter) -> Tensor {
                    let tensor = parameter.tensor.narrowed(axis: 0, expert..<expert + 1)
                    return tensor.reshaped(Array(tensor.shape.dropFirst()))
                }
                return AWQWeight(
                    outputs: outputs, inputs: inputs, groupSize: groupSize, integers: part(integers),
                    packedZeros: part(packedZeros), scales: part(scales)
                ).repacked
            })
    }
}
