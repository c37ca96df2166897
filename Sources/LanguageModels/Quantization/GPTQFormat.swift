import PEFTSupport
import Torch
import TorchNN

/// A `quantization_config` of the method `gptq`, as GPTQModel, AutoGPTQ and transformers write it.
package struct GPTQFormat: Sendable, Equatable {
    package static let method = "gptq"
    /// This project's key for the dtype of floating-point `zeros` that override `qzeros`. Other readers ignore them
    /// and use the rounded ones.
    static let zerosKey = "swift_peft_zeros"

    package var settings: GroupQuantization
    /// Whether columns were quantized in order of importance (`desc_act`), so that groups aren't contiguous.
    package var hasOrder = false
    /// Dtype of floating-point zero points; `nil` if there are none.
    package var zeroType: DType?

    package init(_ settings: GroupQuantization, zeroType: DType? = nil) {
        (self.settings, self.zeroType) = (settings, zeroType)
    }

    /// - Throws: ``PEFTError`` for invalid bits or group sizes, and for unsupported settings.
    package init(_ json: JSON) throws {
        func wrong(_ key: String, _ remedy: String) -> PEFTError {
            PEFTError(
                "config.json: 'quantization_config.\(key)' is \((json[key] ?? .null).text(indent: nil))",
                remedy: remedy)
        }
        guard let bits = json["bits"]?.int, GroupQuantization.supportedBits.contains(bits) else {
            throw wrong("bits", "use 2, 3, 4 or 8")
        }
        guard let group = json["group_size"]?.int ?? (json["group_size"] ?? .null == .null ? 128 : nil),
            group == -1 || group > 0
        else { throw wrong("group_size", "use a value above 0, or -1 for per-channel groups") }
        if let overrides = json["dynamic"], ![.null, [:]].contains(overrides) {
            throw wrong("dynamic", "per-module settings are not supported")
        }
        if let type = json["pack_dtype"]?.string, type != "int32" {
            throw wrong("pack_dtype", "use int32")
        }
        let format = json["checkpoint_format"]?.string ?? json["format"]?.string ?? "gptq"
        guard ["gptq", "gptq_v2"].contains(format) else {
            throw wrong("checkpoint_format", "use gptq or gptq_v2")
        }
        settings = GroupQuantization(
            bits: bits, groupSize: group == -1 ? nil : group, isSymmetric: json["sym"]?.bool ?? true,
            zeroOffset: format == "gptq" ? 1 : 0)
        hasOrder = json["desc_act"]?.bool ?? false
        if let zeros = json[Self.zerosKey], zeros != .null {
            guard let type = zeros.string.flatMap(DType.init(rawValue:)), type.isFloatingPoint else {
                throw wrong(Self.zerosKey, "use float16, bfloat16 or float32")
            }
            zeroType = type
        }
    }

    /// An empty weight for one matrix.
    ///
    /// - Parameter hasZeros: whether the folder contains floating-point zero points for it; only projections with a
    ///   merged adapter have them.
    /// - Throws: ``PEFTError`` if the matrix doesn't fill whole words and groups.
    func weight(outputs: Int, inputs: Int, at path: String, hasZeros: Bool) throws -> any LinearWeight {
        if let refusal = settings.refusal(outputs: outputs, inputs: inputs) {
            throw PEFTError(
                "'\(path)' can't be quantized to \(settings.bits) bits: \(refusal)",
                remedy: "use the config.json that belongs to these weights")
        }
        return GroupQuantizedWeight(
            outputs: outputs, inputs: inputs, settings: settings, zeroType: hasZeros ? zeroType : nil)
    }

    package var json: JSON {
        var fields: [String: JSON] = [
            "quant_method": .string(Self.method), "bits": .integer(settings.bits),
            "group_size": .integer(settings.groupSize ?? -1), "sym": .bool(settings.isSymmetric),
            "desc_act": .bool(hasOrder), "checkpoint_format": settings.zeroOffset == 1 ? "gptq" : "gptq_v2",
            "pack_dtype": "int32", "damp_percent": 0.01,
        ]
        fields[Self.zerosKey] = zeroType.map { .string($0.rawValue) }
        return .object(fields)
    }

    /// The format of a model with projections that are declared so; `nil` if it has none.
    /// - Throws: ``PEFTError`` if formats differ, which one configuration can't describe.
    init?(of projections: QuantizedFolder.Projections) throws {
        typealias Own = (settings: GroupQuantization, zeroType: DType?, hasOrder: Bool)
        let own = projections.all.compactMap { _, declaration -> Own? in
            guard case .gptq(let settings, let zeroType, let hasOrder) = declaration else { return nil }
            return (settings, zeroType, hasOrder)
        }
        guard let first = own.first else { return nil }
        guard projections.otherParts.isEmpty else {
            throw PEFTError(
                "a GPTQ folder can't describe that '\(projections.otherParts[0])' isn't quantized",
                remedy: "quantize the model to nf4, fp4 or int8")
        }
        self.init(first.settings, zeroType: own.lazy.compactMap(\.zeroType).first)
        guard own.allSatisfy({ $0.settings == first.settings }) else {
            throw PEFTError(
                "the model's projections have different quantization formats, which a GPTQ folder can't describe",
                remedy: "quantize all projections to the same format")
        }
        hasOrder = own.contains(where: \.hasOrder)
    }
}

/// A `quantization_config` of the method `awq`. Read only; GPTQ is written.
struct AWQFormat {
    static let method = "awq"
    let groupSize: Int?

    init(_ json: JSON) throws {
        func wrong(_ key: String, _ remedy: String) -> PEFTError {
            PEFTError(
                "config.json: 'quantization_config.\(key)' is \((json[key] ?? .null).text(indent: nil))",
                remedy: remedy)
        }
        guard json["bits"]?.int ?? json["w_bit"]?.int ?? 4 == 4 else { throw wrong("bits", "use 4") }
        guard (json["version"]?.string ?? "gemm").lowercased() == "gemm" else {
            throw wrong("version", "use the GEMM version")
        }
        guard json["zero_point"]?.bool ?? true else { throw wrong("zero_point", "use true") }
        let group = json["group_size"]?.int ?? json["q_group_size"]?.int ?? 128
        guard group == -1 || group > 0 else {
            throw wrong("group_size", "use a value above 0, or -1 for per-channel groups")
        }
        groupSize = group == -1 ? nil : group
    }

    func weight(outputs: Int, inputs: Int, at path: String) throws -> any LinearWeight {
        let settings = GroupQuantization(bits: 4, groupSize: groupSize, zeroOffset: 0)
        if let refusal = settings.refusal(outputs: outputs, inputs: inputs) {
            throw PEFTError(
                "'\(path)' can't be quantized to 4 bits: \(refusal)",
                remedy: "use the config.json that belongs to these weights")
        }
        return AWQWeight(outputs: outputs, inputs: inputs, groupSize: groupSize)
    }
}

extension QuantizedFolder.Method {
    static let gptq = Self(
        name: GPTQFormat.method,
        scheme: { json in
            let format = try GPTQFormat(json)
            return .init(
                shapes: { outputs, inputs, path, stored in
                    let hasZeros = stored.map { $0("zeros") != nil } ?? true
                    return try format.weight(outputs: outputs, inputs: inputs, at: path, hasZeros: hasZeros)
                },
                experts: { experts, outputs, inputs, path in
                    // The checks are those of one expert.
                    _ = try format.weight(outputs: outputs, inputs: inputs, at: path, hasZeros: false)
                    return GroupedExperts(
                        experts: experts, outputs: outputs, inputs: inputs, settings: format.settings)
                })
        }, configuration: { try GPTQFormat(of: $0)?.json })

    static let awq = Self(name: AWQFormat.method) { json in
        let format = try AWQFormat(json)
        return .init(
            shapes: { outputs, inputs, path, _ in try format.weight(outputs: outputs, inputs: inputs, at: path) },
            experts: { experts, outputs, inputs, path in
                _ = try format.weight(outputs: outputs, inputs: inputs, at: path)
                return AWQExperts(experts: experts, outputs: outputs, inputs: inputs, groupSize: format.groupSize)
            })
    }
}
