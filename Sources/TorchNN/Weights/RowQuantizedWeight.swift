import Torch

/// A weight quantized to int8 with a scale for each output, W[o, i] = q[o, i] · scale[o] / 127, stored as in
/// bitsandbytes (LLM.int8(), Dettmers et al. 2022). Unlike there, x isn't quantized.
package struct RowQuantizedWeight: StoredWeight {
    /// int8 `[outputs, inputs]`
    package let codes: Parameter
    /// Absolute maximum of each output, float32 `[outputs]`.
    package let scales: Parameter
    /// bitsandbytes' matrix layout: 0 for row-major, uint8 `[]`.
    package let format: Parameter

    private init(codes: Tensor, scales: Tensor, format: Tensor) {
        (self.codes, self.scales, self.format) = (Parameter(codes), Parameter(scales), Parameter(format))
    }

    /// An empty weight, to be filled from a file.
    package init(outputs: Int, inputs: Int, device: Device = .meta) {
        self.init(
            codes: .empty([outputs, inputs], dtype: .int8, device: device),
            scales: .empty([outputs], device: device), format: .empty([], dtype: .uint8, device: device))
    }

    /// Quantizes a weight `[outputs, inputs]`.
    package init(rounding weight: Tensor) {
        guard weight.device != .meta else {
            self.init(outputs: weight.dim(0), inputs: weight.dim(1))
            return
        }
        let made = StoredMatrix.roundingRows(weight)
        let device = weight.device
        self.init(
            codes: made.codes.to(device), scales: (made.scales ?? made.codes).to(device),
            format: .zeros([], dtype: .uint8, device: device))
    }

    package var outputs: Int { codes.tensor.dim(0) }
    package var inputs: Int { codes.tensor.dim(1) }
    package var matrix: StoredMatrix {
        StoredMatrix(.rows, codes: codes.tensor, scales: scales.tensor, outputs: outputs, inputs: inputs)
    }
    package var formatName: String { "int8" }
    package var declaration: WeightDeclaration? { .bitsAndBytes(nil) }
    /// Quantizes other values with the same settings.
    package func replacing(with dense: Tensor) -> any LinearWeight { RowQuantizedWeight(rounding: dense) }
    package var parameters: [(key: String, parameter: Parameter)] {
        [("weight", codes), ("SCB", scales), ("weight_format", format)]
    }
}

extension WeightFormat.Family {
    static let int8 = Self("int8", format: .int8)
}

extension WeightFormat {
    /// int8 by rows (Dettmers et al. 2022).
    package static let int8 = WeightFormat("int8", quantizing: { RowQuantizedWeight(rounding: $0) })
}
