import PEFTSupport
import Torch

/// Matrices of experts in MXFP4 (Open Compute Project 2023, section 5.3), as gpt-oss has them: 4-bit floats e2m1, with a power
/// of two for each 32 inputs. The bytes stay as they are in the file, where an input with an even index is in the low half.
package struct MXFP4Experts: ExpertWeight {
    package let experts, outputs, inputs: Int
    /// uint8 `[experts, outputs, inputs / 32, 16]`
    private let blocks: Parameter
    /// uint8 `[experts, outputs, inputs / 32]`, exponents plus 127.
    private let scales: Parameter
    private let tables: Tables

    /// Constants, for which `[blocks / 256]` scales of the kernel for nested scales are 1.
    private final class Tables {
        let values, exponents, ones: Tensor

        init(blocks: Int, device: Device) {
            let positive: [Float] = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
            values = Tensor(positive + positive.map { -$0 }, shape: [16], device: device)
            // 255 is not a number.
            exponents = Tensor(
                (0..<256).map { $0 == 255 ? Float.nan : Float(sign: .plus, exponent: $0 - 127, significand: 1) },
                shape: [256], device: device)
            ones = .ones([(blocks + 255) / 256], device: device)
        }
    }

    /// Matrices that a file fills.
    /// - Throws: ``PEFTError`` if the inputs don't fill blocks.
    package init(experts: Int, outputs: Int, inputs: Int) throws {
        guard inputs.isMultiple(of: 32) else {
            throw PEFTError(
                "the experts have \(inputs) inputs, which are no multiple of 32, the block size of mxfp4",
                remedy: "use the config.json that belongs to these weights")
        }
        (self.experts, self.outputs, self.inputs) = (experts, outputs, inputs)
        blocks = Parameter(.empty([experts, outputs, inputs / 32, 16], dtype: .uint8, device: .meta))
        scales = Parameter(.empty([experts, outputs, inputs / 32], dtype: .uint8, device: .meta))
        tables = Tables(blocks: experts * outputs * inputs / 32, device: .cpu)
    }

    package var parameters: [(key: String, parameter: Parameter)] { [("_blocks", blocks), ("_scales", scales)] }
    package var areSiblings: Bool { true }
    package var hasSwappedPairs: Bool { true }

    private var matrix: StoredMatrix {
        let device = blocks.tensor.device
        return StoredMatrix(
            .blocks, codes: blocks.tensor.reshaped(-1, 1), scales: scales.tensor.reshaped(-1),
            table: tables.values.to(device),
            nested: .init(scales: tables.ones.to(device), table: tables.exponents.to(device), offset: 0), block: 32,
            outputs: experts * outputs, inputs: inputs)
    }

    package var matrices: ExpertMatrices { ExpertMatrices(.stored(matrix), experts: experts) }
    package func dense(as type: DType) -> Tensor {
        matrix.dense(as: type).reshaped(experts, outputs, inputs / 2, 2).flipped(axis: -1)
            .reshaped(experts, outputs, inputs)
    }
    package var formatName: String { "mxfp4" }
    package var precision: WeightPrecision { .quantized }
    package func replacing(with dense: Tensor) throws -> any ExpertWeight {
        throw PEFTError("values can't be rounded to mxfp4", remedy: "dequantize the experts first")
    }
}
