import Support
import Torch
import TorchNN

/// A weight format for a model's projections, as named by users: a ``WeightStorage``, or group-wise integers by
/// round-to-nearest or GPTQ.
public enum WeightRounding: Sendable, Equatable {
    case storage(WeightStorage)
    case groups(GroupQuantization, usesGPTQ: Bool)

    /// Default group size: inputs that share a scale and a zero point.
    public static let usualGroupSize = 128

    /// - Parameter name: one of ``WeightStorage/names``; or `int2`, `int3`, `int4` or `int8` followed by `-g` and the
    ///   group size, and optionally `-gptq`, as in `int4-g32-gptq`. (Plain `int8` has one scale per output.)
    /// - Throws: ``PEFTError`` for an unknown name.
    public init(_ name: String) throws {
        var parts = name.lowercased().split(separator: "-").map(String.init)
        let bits = ["int2": 2, "int3": 3, "int4": 4, "int8": 8][parts.first ?? ""]
        guard let bits, bits != 8 || parts.count > 1 else {
            do { self = .storage(try WeightStorage(name)) } catch is PEFTError {
                throw Self.unknown(name)
            }
            return
        }
        parts.removeFirst()
        let usesGPTQ = parts.last == "gptq"
        if usesGPTQ { parts.removeLast() }
        var groupSize = Self.usualGroupSize
        if let group = parts.first {
            guard parts.count == 1, group.hasPrefix("g"), let size = Int(group.dropFirst()), size > 0,
                size.isMultiple(of: 32)
            else { throw Self.unknown(name) }
            groupSize = size
        }
        self = .groups(GroupQuantization(bits: bits, groupSize: groupSize), usesGPTQ: usesGPTQ)
    }

    private static func unknown(_ name: String) -> PEFTError {
        PEFTError(
            "unknown weight format '\(name)'",
            remedy: (nearestName(to: name, in: WeightStorage.names).map { "did you mean \($0)? " } ?? "")
                + "use one of \(WeightStorage.names.joined(separator: ", ")), or group-wise integers such as int4-g32 "
                + "and int4-g32-gptq (group sizes are multiples of 32)")
    }

    public var name: String {
        switch self {
        case .storage(let storage): storage.name
        case .groups(let settings, let usesGPTQ):
            "int\(settings.bits)-g\(settings.groupSize ?? 0)\(usesGPTQ ? "-gptq" : "")"
        }
    }

    /// Whether the weights are quantized.
    public var isQuantized: Bool { self != .storage(.float32) && self != .storage(.bfloat16) }

    /// Whether calibration samples are needed (GPTQ).
    public var needsSamples: Bool {
        if case .groups(_, usesGPTQ: true) = self { true } else { false }
    }

    /// Replaces the projections of a meta model by empty quantized ones.
    /// - Throws: ``PEFTError`` if no projection supports this format.
    public func outline(_ model: any LanguageModel) throws {
        try check(model)
        switch self {
        case .storage(let storage): storage.apply(to: model)
        case .groups(let settings, _):
            for (_, linear) in GroupQuantizer(settings).selection(in: model).chosen {
                linear.weight = GroupQuantizedWeight(
                    outputs: linear.outputs, inputs: linear.inputs, settings: settings)
            }
        }
    }

    /// - Throws: ``PEFTError`` if no projection of the model supports this format.
    public func check(_ model: any LanguageModel) throws {
        switch self {
        case .storage(let storage):
            guard storage == .float32 || !storage.projections(of: model).isEmpty else {
                throw PEFTError(
                    "no projection of a \(model.family) can be stored as \(name)", remedy: "use another weight format"
                )
            }
        case .groups(let settings, _):
            let selection = GroupQuantizer(settings).selection(in: model)
            guard selection.chosen.isEmpty else { return }
            throw PEFTError(
                "no projection of the model can be stored as \(name)",
                remedy: selection.left.first.map { "\($0.path): \($0.reason)" })
        }
    }

    /// Quantizes the projections of an unquantized model.
    ///
    /// - Parameter samples: runs calibration samples through the model, for GPTQ.
    public func apply(to model: any LanguageModel, samples: () throws -> Void) throws {
        switch self {
        case .storage(let storage): try withTorchErrors { storage.apply(to: model) }
        case .groups(let settings, let usesGPTQ):
            let quantizer = GroupQuantizer(settings)
            _ = usesGPTQ ? try quantizer.calibrate(model, forward: samples) : try quantizer.round(model)
        }
    }
}

extension LanguageModel {
    /// Size in bytes of the model's tensors in a file with dense tensors of `type`; quantized weights are stored as
    /// they are.
    public func storedBytes(as type: DType) -> Int {
        let kept = storedAsTheyAre
        return parameters().reduce(0) { sum, item in
            let tensor = item.parameter.tensor
            // bf16 in memory is stored as bf16.
            return sum
                + (kept.contains(ObjectIdentifier(item.parameter))
                    ? tensor.byteCount : min(tensor.byteCount, tensor.count * type.size))
        }
    }
}
