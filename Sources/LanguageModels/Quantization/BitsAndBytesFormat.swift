import PEFTSupport
import Torch
import TorchNN

/// A `quantization_config` of the method `bitsandbytes`, as transformers writes it: NF4 or FP4 in blocks, or int8 by
/// rows.
struct BitsAndBytesFormat {
    static let method = "bitsandbytes"
    /// `nil` for int8.
    let blocks: BlockQuantization?

    init(_ json: JSON) throws {
        func wrong(_ key: String, _ remedy: String) -> PEFTError {
            PEFTError(
                "config.json: 'quantization_config.\(key)' is \((json[key] ?? .null).text(indent: nil))",
                remedy: remedy)
        }
        func flag(_ key: String) -> Bool { json[key]?.bool ?? json["_" + key]?.bool ?? false }
        guard flag("load_in_4bit") != flag("load_in_8bit") else {
            throw wrong("load_in_4bit", "set either it or 'load_in_8bit' to true")
        }
        guard flag("load_in_4bit") else {
            blocks = nil
            return
        }
        guard let code = BlockCode(rawValue: json["bnb_4bit_quant_type"]?.string ?? "fp4") else {
            throw wrong("bnb_4bit_quant_type", "use nf4 or fp4")
        }
        guard json["bnb_4bit_quant_storage"]?.string ?? "uint8" == "uint8" else {
            throw wrong("bnb_4bit_quant_storage", "use uint8")
        }
        blocks = BlockQuantization(code, isDouble: json["bnb_4bit_use_double_quant"]?.bool ?? false)
    }

    /// The tensor whose presence marks a projection as quantized.
    var marker: String { blocks == nil ? "SCB" : "weight.absmax" }

    /// An empty weight for one matrix.
    ///
    /// - Parameter stored: the shape of a tensor in the folder, by its name below the projection's.
    /// - Throws: ``PEFTError`` if the scales match no block size.
    func weight(outputs: Int, inputs: Int, at path: String, _ stored: QuantizedFolder.Stored?) throws
        -> any LinearWeight
    {
        guard var settings = blocks else { return RowQuantizedWeight(outputs: outputs, inputs: inputs) }
        guard let scales = stored?("weight.absmax")?.reduce(1, *) else {
            return BlockQuantizedWeight(outputs: outputs, inputs: inputs, settings: settings)
        }
        // The configuration lacks the block size; it follows from the number of scales.
        let fitting = BlockQuantization.blocks.filter {
            BlockQuantization(block: $0).blocks(of: outputs * inputs) == scales
        }
        guard let block = fitting.contains(settings.block) ? settings.block : fitting.last else {
            throw PEFTError(
                "'\(path)' has \(scales) scales for \(outputs * inputs) weights, which matches no block size",
                remedy: "use the config.json that belongs to these weights")
        }
        settings.block = block
        return BlockQuantizedWeight(
            outputs: outputs, inputs: inputs, settings: settings,
            stateSize: stored?("weight.quant_state.bitsandbytes__\(settings.code.rawValue)")?.first)
    }

    /// The `quantization_config` of a model with projections that are declared so; `nil` if it has none.
    /// - Throws: ``PEFTError`` if formats differ, which one configuration can't describe.
    static func json(of projections: QuantizedFolder.Projections) throws -> JSON? {
        var (blocks, rows, left): ([BlockQuantization], Int, [String]) = ([], 0, [])
        for (path, declaration) in projections.all {
            switch declaration {
            case .bitsAndBytes(let settings?): blocks.append(settings)
            case .bitsAndBytes(nil): rows += 1
            default: left.append(path)
            }
        }
        guard rows > 0 || !blocks.isEmpty else { return nil }
        let kinds = Set(blocks.map { "\($0.code.rawValue) \($0.isDouble)" })
        guard rows == 0 || blocks.isEmpty, kinds.count <= 1 else {
            throw PEFTError(
                "the model's projections have different quantization formats, which config.json can't describe",
                remedy: "quantize all projections to the same format")
        }
        // A tied output layer is still a projection to bitsandbytes.
        let output = projections.outputLayer
        if !output.isEmpty, !left.contains(output) { left.append(output) }
        left += projections.otherParts
        return [
            "quant_method": .string(method), "load_in_4bit": .bool(rows == 0), "load_in_8bit": .bool(rows > 0),
            "_load_in_4bit": .bool(rows == 0), "_load_in_8bit": .bool(rows > 0),
            "bnb_4bit_compute_dtype": "float32", "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_quant_type": .string((blocks.first?.code ?? .fp4).rawValue),
            "bnb_4bit_use_double_quant": .bool(blocks.first?.isDouble ?? false),
            "llm_int8_enable_fp32_cpu_offload": false, "llm_int8_has_fp16_weight": false,
            "llm_int8_skip_modules": .array(left.map(JSON.string)), "llm_int8_threshold": 6.0,
        ]
    }
}

extension QuantizedFolder.Method {
    static let bitsAndBytes = Self(
        name: BitsAndBytesFormat.method,
        scheme: { json in
            let format = try BitsAndBytesFormat(json)
            return .init(marker: format.marker, shapes: format.weight)
        }, configuration: BitsAndBytesFormat.json)
}
