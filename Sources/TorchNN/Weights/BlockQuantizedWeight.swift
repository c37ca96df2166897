import Foundation
import PEFTSupport
import Torch

/// A weight quantized to 4-bit codes, NF4 or FP4, with a scale for each block, stored as in bitsandbytes (QLoRA,
/// Dettmers et al. 2023).
///
/// Only the codes are in memory; matmuls dequantize tile by tile, and so does the backward pass.
package struct BlockQuantizedWeight: StoredWeight {
    package let outputs: Int
    package let inputs: Int
    package let settings: BlockQuantization
    /// uint8 `[⌈outputs · inputs / 2⌉, 1]`
    package let codes: Parameter
    /// float32 `[blocks]`, or uint8 with double quantization.
    package let scales: Parameter
    /// float32 `[16]`: the values of the codes.
    package let table: Parameter
    /// float32 `[⌈blocks / 256⌉]` and float32 `[256]`, with double quantization.
    package let nestedScales: Parameter?
    package let nestedTable: Parameter?
    /// bitsandbytes' `quant_state`: JSON as bytes, uint8.
    package let state: Parameter
    /// The mean of the scales, which is subtracted before they are quantized.
    private let offset: Double
    /// The original values, if they can still be read; a replaced weight has none.
    package private(set) var original: OriginalValues?

    private init(
        _ outputs: Int, _ inputs: Int, _ settings: BlockQuantization, codes: Parameter, scales: Parameter,
        table: Parameter, nested: (scales: Parameter, table: Parameter)?, state: Parameter, offset: Double
    ) {
        (self.outputs, self.inputs, self.settings) = (outputs, inputs, settings)
        (self.codes, self.scales, self.table, self.state) = (codes, scales, table, state)
        (nestedScales, nestedTable, self.offset) = (nested?.scales, nested?.table, offset)
    }

    /// An empty weight, to be filled from a file.
    ///
    /// - Parameter stateSize: size of the file's `quant_state` in bytes; `nil` for the size that this library writes.
    package init(
        outputs: Int, inputs: Int, settings: BlockQuantization, stateSize: Int? = nil, device: Device = .meta
    ) {
        func empty(_ shape: [Int], _ dtype: DType) -> Parameter {
            Parameter(.empty(shape, dtype: dtype, device: device))
        }
        let count = outputs * inputs
        let blocks = settings.blocks(of: count)
        let text = settings.description(outputs: outputs, inputs: inputs, offset: 0)
        self.init(
            outputs, inputs, settings, codes: empty([(count + 1) / 2, 1], .uint8),
            scales: empty([blocks], settings.isDouble ? .uint8 : .float32), table: empty([16], .float32),
            nested: settings.isDouble ? (empty([(blocks + 255) / 256], .float32), empty([256], .float32)) : nil,
            state: empty([stateSize ?? text.utf8.count], .uint8), offset: 0)
    }

    /// Quantizes a weight `[outputs, inputs]`.
    package init(rounding weight: Tensor, to settings: BlockQuantization) {
        let (outputs, inputs) = (weight.dim(0), weight.dim(1))
        guard weight.device != .meta else {
            self.init(outputs: outputs, inputs: inputs, settings: settings)
            return
        }
        let made = StoredMatrix.rounding(
            weight, to: settings.code, block: settings.block, isDouble: settings.isDouble)
        let offset = made.nested?.offset ?? 0
        let text = settings.description(outputs: outputs, inputs: inputs, offset: offset)
        func stored(_ tensor: Tensor) -> Parameter { Parameter(tensor.to(weight.device)) }
        self.init(
            outputs, inputs, settings, codes: stored(made.codes), scales: stored(made.scales ?? made.codes),
            table: stored(made.table ?? settings.code.table),
            nested: made.nested.map { (stored($0.scales), stored($0.table)) },
            state: stored(Tensor(Array(text.utf8))), offset: offset)
    }

    package var matrix: StoredMatrix {
        var nested: StoredMatrix.NestedScales?
        if let nestedScales, let nestedTable {
            nested = .init(scales: nestedScales.tensor, table: nestedTable.tensor, offset: offset)
        }
        return StoredMatrix(
            .blocks, codes: codes.tensor, scales: scales.tensor, table: table.tensor, nested: nested,
            block: settings.block,
            outputs: outputs, inputs: inputs)
    }

    package var formatName: String { settings.code.rawValue }
    package var blockCode: BlockCode? { settings.code }
    package var declaration: WeightDeclaration? { .bitsAndBytes(settings) }

    /// Quantizes other values with the same settings.
    package func replacing(with dense: Tensor) -> any LinearWeight {
        BlockQuantizedWeight(rounding: dense, to: settings)
    }

    package func with(original: OriginalValues) -> any LinearWeight {
        var weight = self
        weight.original = original
        return weight
    }

    /// Applies the file's `quant_state`.
    package func loaded() -> any LinearWeight {
        guard state.tensor.device != .meta else { return self }
        do {
            let json = try JSON.parse(Data(state.tensor.array(UInt8.self)), name: "a quantized weight's quant_state")
            guard json["quant_type"]?.string == settings.code.rawValue, json["blocksize"]?.int == settings.block,
                json["shape"]?.array?.compactMap(\.int) == [outputs, inputs],
                json["nested_blocksize"]?.int ?? 256 == 256
            else {
                throw PEFTError(
                    "a quantized weight's quant_state is \(json.text(indent: nil)), but its tensors are \(settings.code.rawValue) of shape [\(outputs), \(inputs)] in blocks of \(settings.block)",
                    remedy: "the file is damaged; download it again")
            }
            var weight = BlockQuantizedWeight(
                outputs, inputs, settings, codes: codes, scales: scales, table: table,
                nested: nestedScales.flatMap { scales in nestedTable.map { (scales, $0) } }, state: state,
                offset: json["nested_offset"]?.double ?? 0)
            weight.original = original
            return weight
        } catch let error as PEFTError {
            reportFailure(error)
        } catch {
            reportFailure(PEFTError("\(error)"))
        }
        return self
    }

    package var parameters: [(key: String, parameter: Parameter)] {
        var all = [("weight", codes), ("weight.absmax", scales), ("weight.quant_map", table)]
        if let nestedScales, let nestedTable {
            all += [("weight.nested_absmax", nestedScales), ("weight.nested_quant_map", nestedTable)]
        }
        return all + [("weight.quant_state.bitsandbytes__\(settings.code.rawValue)", state)]
    }
}

extension WeightFormat.Family {
    static let nf4 = blocks(.nf4)
    static let fp4 = blocks(.fp4)

    /// With the suffix `-double` the blocks' scales are quantized too (double quantization).
    private static func blocks(_ code: BlockCode) -> Self {
        Self(names: [code.rawValue, code.rawValue + "-double"]) { name, block in
            let parts = name.split(separator: "-", maxSplits: 1)
            guard parts.first == Substring(code.rawValue), parts.count == 1 || parts[1] == "double" else {
                return nil
            }
            return .blocks(BlockQuantization(code, block: block, isDouble: parts.count == 2))
        }
    }
}

extension WeightFormat {
    /// NF4 or FP4 in blocks (Dettmers et al. 2023).
    package static func blocks(_ settings: BlockQuantization) -> WeightFormat {
        WeightFormat(
            settings.code.rawValue + (settings.isDouble ? "-double" : ""), blocks: settings,
            quantizing: { BlockQuantizedWeight(rounding: $0, to: settings) })
    }
}
