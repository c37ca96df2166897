import Foundation
import PEFTSupport
import Torch
import TorchNN

extension LanguageModel {
    /// Writes the model as a GGUF file for llama.cpp and transformers.
    ///
    /// - Parameters:
    ///   - type: the file's format, which decides on the type of each matrix.
    ///   - tokenizer: the tokenizer's metadata from ``GGUFVocabulary``.
    ///   - name: the model's name in the file.
    /// - Throws: ``PEFTError`` for a model that llama.cpp would compute differently, with the difference.
    package func writeGGUF(
        to url: URL, type: GGUFFormat, tokenizer: [(String, GGUFValue)], name: String, replacing: Bool = true
    ) throws {
        let names = try GGUFNames(of: self)
        var description = GGUFDescription(architecture: names.name)
        try (self as? any GGUFWritable)?.describe(in: &description)
        // Each tensor with its type, if the format doesn't decide on it.
        var contents: [(name: String, shape: [Int], type: GGUFType?, make: () throws -> Tensor)] = []
        // The vectors of the model that are rows of one matrix of the file, by its name.
        var rows: [(name: String, size: Int, make: [Int: () -> Tensor])] = []
        func add(_ path: String, _ shape: [Int], _ make: @escaping () -> Tensor) throws {
            if let (form, targets) = names.form(of: path), let sizes = names.sizes {
                let parts = form.split(.empty(shape, device: .meta), sizes)
                for (index, (target, part)) in zip(targets, parts).enumerated() {
                    contents.append(
                        (
                            // Biases are F32 in all formats.
                            target, part.shape, form.isSingle || !target.hasSuffix(".weight") ? .f32 : nil,
                            {
                                form.split(make().detached().to(.cpu).to(.float32), sizes)[index].contiguous()
                            }
                        ))
                }
                return
            }
            if let (name, row) = names.tensors.stack(of: path), shape.count == 1 {
                let index = rows.firstIndex { $0.name == name } ?? rows.count
                if index == rows.count { rows.append((name, shape[0], [:])) }
                rows[index].make[row] = make
                return
            }
            if let targets = names.architecture.experts?.tensors(of: path), shape.count == 3 {
                let rows = shape[1] / targets.count
                for (index, target) in targets.enumerated() {
                    let own = [shape[0], rows, shape[2]]
                    contents.append(
                        (
                            target, own, nil,
                            {
                                let tensor = make().detached().to(.cpu).to(.float32)
                                return tensor.narrowed(axis: 1, index * rows..<(index + 1) * rows).contiguous()
                            }
                        ))
                }
                return
            }
            guard let target = names.tensor(of: path) else {
                throw PEFTError("a GGUF file can't store '\(path)'", remedy: "merge the adapter first")
            }
            let adds = names.architecture.addsOneToNorms && path.hasSuffix("norm.weight")
            let shape = names.architecture.experts?.isRow(target) == true ? Array(shape.dropFirst()) : shape
            let isRouter = names.architecture.experts?.isRouter(target) == true
            contents.append(
                (
                    target, shape, isRouter ? .f32 : nil,
                    {
                        let tensor = try names.stored(make().detached().to(.cpu).to(.float32), at: path).reshaped(
                            shape)
                        return adds ? tensor + 1 : tensor
                    }
                ))
        }
        let sites = namedModules().compactMap { path, module in (module as? ExpertLinear).map { (path, $0) } }
        for (path, site) in sites {
            let weight = site.weight
            try add(path, [weight.experts, weight.outputs, weight.inputs]) { weight.dense(as: .float32) }
        }
        let packed = storedAsTheyAre.union(
            sites.flatMap { $0.1.weight.parameters.map { ObjectIdentifier($0.parameter) } })
        for (path, parameter) in parameters() where !packed.contains(ObjectIdentifier(parameter)) {
            try add(path, parameter.tensor.shape) { parameter.tensor }
        }
        for (path, module) in namedModules() {
            guard
                let weight = (module as? Linear)?.weight
                    ?? (module as? Embedding).flatMap({ $0.table == nil ? $0.weight : nil }),
                weight.isQuantized
            else { continue }
            try add("\(path).weight", [weight.outputs, weight.inputs]) { weight.dense(as: .float32) }
        }
        for (name, size, make) in rows {
            let vectors = make.sorted { $0.key < $1.key }.map(\.value)
            contents.append(
                (
                    name, [vectors.count, size], .f32,
                    {
                        Tensor.concatenated(
                            vectors.map { $0().detached().to(.cpu).to(.float32).reshaped(1, size) }, axis: 0)
                    }
                ))
        }
        if let factors = description.factors {
            contents.append(("rope_freqs.weight", [factors.count], .f32, { Tensor(factors) }))
        }
        let general: [(String, GGUFValue)] = [
            ("general.architecture", .string(names.name)), ("general.type", .string("model")),
            ("general.name", .string(name)), ("general.file_type", .integer(type.number)),
            ("general.quantization_version", .integer(2)),
        ]
        let model = GGUFFormat.Model(
            names: contents.map(\.name), experts: sites.map { $0.1.weight.experts }.max() ?? 0)
        let typed = contents.map { name, shape, fixed, make in
            GGUFFile.Content(name, shape, fixed ?? type.type(of: name, shape: shape, in: model), make: make)
        }
        try GGUFFile.write(general + description.settings + tokenizer, typed, to: url, replacing: replacing)
    }
}
