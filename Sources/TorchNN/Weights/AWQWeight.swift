import PEFTSupport
import Torch

/// A weight in AWQ's file format (Lin et al. 2023, GEMM version), which is repacked as a ``GroupQuantizedWeight``
/// once its values are loaded.
///
/// A word packs eight outputs of one input, in the order 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits; zero points
/// likewise.
package struct AWQWeight: LinearWeight {
    package let outputs: Int
    package let inputs: Int
    let settings: GroupQuantization
    /// int32 `[inputs, outputs / 8]`
    private let integers: Parameter
    /// int32 `[groups, outputs / 8]`
    private let packedZeros: Parameter
    /// float16 `[groups, outputs]`
    private let scales: Parameter

    package init(outputs: Int, inputs: Int, groupSize: Int?, device: Device = .meta) {
        (self.outputs, self.inputs) = (outputs, inputs)
        settings = GroupQuantization(bits: 4, groupSize: groupSize, zeroOffset: 0)
        let groups = settings.groups(of: inputs)
        integers = Parameter(.empty([inputs, outputs / 8], dtype: .int32, device: device))
        packedZeros = Parameter(.empty([groups, outputs / 8], dtype: .int32, device: device))
        scales = Parameter(.empty([groups, outputs], dtype: .float16, device: device))
    }

    /// A weight with values.
    init(outputs: Int, inputs: Int, groupSize: Int?, integers: Tensor, packedZeros: Tensor, scales: Tensor) {
        (self.outputs, self.inputs) = (outputs, inputs)
        settings = GroupQuantization(bits: 4, groupSize: groupSize, zeroOffset: 0)
        self.integers = Parameter(integers)
        self.packedZeros = Parameter(packedZeros)
        self.scales = Parameter(scales)
    }

    package var parameters: [(key: String, parameter: Parameter)] {
        [("qweight", integers), ("qzeros", packedZeros), ("scales", scales)]
    }
    package var formatName: String { "group-wise integers" }
    package func project(_ x: Tensor, bias: Tensor?) -> Tensor { repacked.project(x, bias: bias) }
    package func dense(as type: DType) -> Tensor { repacked.dense(as: type) }
    package func replacing(with dense: Tensor) throws -> any LinearWeight { try repacked.replacing(with: dense) }
    package func loaded() -> any LinearWeight { repacked }

    /// The same integers, zero points and scales in GPTQ's layout.
    var repacked: GroupQuantizedWeight {
        guard integers.tensor.device != .meta else {
            return GroupQuantizedWeight(outputs: outputs, inputs: inputs, settings: settings)
        }
        let groupSize = settings.groupSize ?? inputs
        let device = integers.tensor.device
        return GroupQuantizedWeight(
            outputs: outputs, inputs: inputs, settings: settings,
            integers: Parameter(Self.ordered(integers.tensor).packed(bits: 4, axis: 0)),
            packedZeros: Parameter(Self.ordered(packedZeros.tensor).packed(bits: 4, axis: 1)),
            scales: scales,
            order: Parameter(Tensor((0..<inputs).map { Int32($0 / groupSize) }, device: device)))
    }

    /// Unpacks words of eight columns each, columns in natural order.
    private static func ordered(_ words: Tensor) -> Tensor {
        let stored = words.unpacked(bits: 4, axis: 1)
        // Column 8 w + j is at index places[j] of word w.
        let places = [0, 4, 1, 5, 2, 6, 3, 7]
        let columns = (0..<stored.dim(1)).map { $0 / 8 * 8 + places[$0 % 8] }
        return stored.selecting(axis: 1, Tensor(columns, device: words.device))
    }
}
