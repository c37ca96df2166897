import PEFTSupport
import Torch

/// A tensor of a model's layer that has another form in the file: as several tensors, transposed, or under a name that
/// doesn't end in the model's way.
struct GGUFForm: Sendable {
    /// The model's name below a layer.
    let model: String
    /// The file's names below `blk.N`.
    let files: [String]
    /// Number of axes of each of the file's tensors; `nil` if ``join`` accepts any.
    let axes: Int?
    /// Whether llama.cpp stores it as F32 in files of all formats.
    var isSingle = false
    /// Whether models with experts have it, or those without; `nil` if both.
    var needsExperts: Bool?
    /// The file's tensors of the model's; matrices of experts are `[experts, outputs, inputs]`.
    var split: @Sendable (Tensor, GGUFSizes) -> [Tensor] = { tensor, _ in [tensor] }
    /// The model's tensor of the file's, as its folder has it.
    var join: @Sendable ([Tensor]) -> Tensor = { $0[0] }
}

extension GGUFNames {
    private var hasExperts: Bool { sizes?.hasExperts ?? false }

    /// The form of a model's tensor, with the file's names; `nil` for tensors that only have another name.
    func form(of path: String) -> (form: GGUFForm, tensors: [String])? {
        guard let (layer, rest) = Self.split(path, tensors.layers),
            let form = architecture.forms.first(where: {
                $0.model == rest && $0.needsExperts ?? hasExperts == hasExperts
            })
        else { return nil }
        return (form, form.files.map { "blk.\(layer).\($0)" })
    }

    /// The form of the model's tensor to which a file's tensor belongs, with the model's and the file's names.
    func form(ofTensor name: String) -> (form: GGUFForm, path: String, tensors: [String])? {
        guard let (layer, rest) = Self.split(name, "blk."),
            let form = architecture.forms.first(where: { $0.files.contains(rest) })
        else { return nil }
        return (form, "\(tensors.layers)\(layer).\(form.model)", form.files.map { "blk.\(layer).\($0)" })
    }

    /// The index of a tensor's layer and its name there.
    private static func split(_ name: String, _ layers: String) -> (layer: Int, rest: String)? {
        guard name.hasPrefix(layers) else { return nil }
        let rest = name.dropFirst(layers.count)
        guard let dot = rest.firstIndex(of: "."), let layer = Int(rest[..<dot]), layer >= 0 else { return nil }
        return (layer, String(rest[rest.index(after: dot)...]))
    }
}

extension GGUFForm {
    /// A tensor with another name alone.
    static func renamed(_ model: String, _ file: String, axes: Int = 1) -> GGUFForm {
        GGUFForm(model: model, files: [file], axes: axes)
    }

    /// A tensor whose rows, along its second axis, are in turn those of two tensors of the file.
    /// - Parameter isTransposed: whether folders have it with its last axes swapped.
    static func alternating(_ model: String, _ files: [String], axes: Int, isTransposed: Bool) -> GGUFForm {
        let axis = 1
        return GGUFForm(
            model: model, files: files, axes: axes,
            split: { tensor, _ in
                var (pairs, shape) = (tensor.shape, tensor.shape)
                shape[axis] /= files.count
                pairs.replaceSubrange(axis...axis, with: [shape[axis], files.count])
                return files.indices.map { part in
                    tensor.reshaped(pairs).narrowed(axis: axis + 1, part..<part + 1).reshaped(shape)
                }
            },
            join: { parts in
                var shape = parts[0].shape
                shape[axis] *= parts.count
                let tensor = Tensor.concatenated(parts.map { $0.unsqueezed(axis + 1) }, axis: axis + 1)
                    .reshaped(shape)
                return isTransposed ? tensor.transposed().contiguous() : tensor
            })
    }
}
