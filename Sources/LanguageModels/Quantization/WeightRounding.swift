import PEFTSupport
import Torch
import TorchNN

/// A weight format for a model's projections, as named by users: a ``WeightStorage``, or group-wise integers by
/// round-to-nearest or GPTQ.
package struct WeightRounding: Sendable, Equatable {
    package let format: WeightFormat

    /// - Parameter name: one of ``WeightStorage/names``; or `int2`, `int3`, `int4` or `int8` followed by `-g` and the
    ///   group size, and optionally `-gptq`, as in `int4-g32-gptq`. (Plain `int8` has one scale per output.)
    /// - Throws: ``PEFTError`` for an unknown name.
    package init(_ name: String) throws { format = try WeightFormat(name) }

    package var name: String { format.name }

    /// Whether the weights are quantized.
    package var isQuantized: Bool { format.isQuantized }

    /// Whether calibration samples are needed (GPTQ).
    package var needsSamples: Bool { format.groups?.usesGPTQ == true }

    /// The format to which a model is converted while it is loaded; `nil` if only a loaded model can be quantized.
    package var storage: WeightStorage? { format.groups == nil ? WeightStorage(format: format) : nil }

    /// Replaces the projections of a meta model by empty quantized ones.
    /// - Throws: ``PEFTError`` if no projection supports this format.
    package func outline(_ model: any LanguageModel) throws {
        try check(model)
        storage?.apply(to: model)
        guard let settings = format.groups?.settings else { return }
        for (_, linear) in GroupQuantizer(settings).selection(in: model).chosen {
            linear.weight = GroupQuantizedWeight(
                outputs: linear.outputs, inputs: linear.inputs, settings: settings)
        }
    }

    /// - Throws: ``PEFTError`` if no projection of the model supports this format.
    package func check(_ model: any LanguageModel) throws {
        if let storage {
            guard storage.format.conversion == nil || !storage.projections(of: model).isEmpty else {
                throw PEFTError(
                    "no projection of a \(model.family) can be stored as \(name)", remedy: "use another weight format"
                )
            }
        }
        if let groups = format.groups {
            let selection = GroupQuantizer(groups.settings).selection(in: model)
            guard selection.chosen.isEmpty else { return }
            throw PEFTError(
                "no projection of the model can be stored as \(name)",
                remedy: selection.left.first.map { "\($0.path): \($0.reason)" })
        }
    }

    /// Quantizes the projections of an unquantized model.
    ///
    /// - Parameter samples: runs calibration samples through the model, for GPTQ.
    package func apply(to model: any LanguageModel, samples: () throws -> Void) throws {
        if let storage { try withTorchErrors { storage.apply(to: model) } }
        if let groups = format.groups {
            let quantizer = GroupQuantizer(groups.settings)
            _ = groups.usesGPTQ ? try quantizer.calibrate(model, forward: samples) : try quantizer.round(model)
        }
    }
}

extension LanguageModel {
    /// Size in bytes of the model's tensors in a file with dense tensors of `type`; quantized weights are stored as
    /// they are.
    package func storedBytes(as type: DType) -> Int {
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
