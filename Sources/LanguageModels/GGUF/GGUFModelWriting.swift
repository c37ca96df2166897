import Foundation
import PEFTSupport
import Torch
import TorchNN

extension LanguageModel {
    /// Writes the model as a GGUF file for llama.cpp and transformers.
    ///
    /// - Parameters:
    ///   - type: storage type of matrices. Vectors stay F32; with Q4_0 the embeddings and the output layer are Q8_0;
    ///     rows that aren't whole blocks are F16.
    ///   - tokenizer: the tokenizer's metadata from ``GGUFVocabulary``.
    ///   - name: the model's name in the file.
    /// - Throws: ``PEFTError`` for a model that llama.cpp would compute differently, with the difference.
    package func writeGGUF(
        to url: URL, type: GGUFType, tokenizer: [(String, GGUFValue)], name: String, replacing: Bool = true
    ) throws {
        let names = try GGUFNames(of: self)
        var description = GGUFDescription(architecture: names.name)
        try (self as? any GGUFWritable)?.describe(in: &description)
        var contents: [GGUFFile.Content] = []
        func add(_ path: String, _ shape: [Int], _ make: @escaping () -> Tensor) throws {
            if let targets = names.architecture.experts?.tensors(of: path), shape.count == 3 {
                let rows = shape[1] / targets.count
                for (index, target) in targets.enumerated() {
                    let own = [shape[0], rows, shape[2]]
                    contents.append(
                        .init(target, own, Self.storedType(of: path, own, type, outer: [])) {
                            let tensor = make().detached().to(.cpu).to(.float32)
                            return tensor.narrowed(axis: 1, index * rows..<(index + 1) * rows).contiguous()
                        })
                }
                return
            }
            guard let target = names.tensor(of: path) else {
                throw PEFTError("a GGUF file can't store '\(path)'", remedy: "merge the adapter first")
            }
            let adds = names.architecture.addsOneToNorms && path.hasSuffix("norm.weight")
            let shape = names.architecture.experts?.isRow(target) == true ? Array(shape.dropFirst()) : shape
            let isRouter = names.architecture.experts?.isRouter(target) == true
            let stored =
                isRouter ? .f32 : Self.storedType(of: path, shape, type, outer: [inputEmbedding, outputLayer])
            contents.append(
                .init(target, shape, stored) {
                    let tensor = try names.stored(make().detached().to(.cpu).to(.float32), at: path).reshaped(shape)
                    return adds ? tensor + 1 : tensor
                })
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
        if let factors = description.factors {
            contents.append(.init("rope_freqs.weight", [factors.count], .f32) { Tensor(factors) })
        }
        let general: [(String, GGUFValue)] = [
            ("general.architecture", .string(names.name)), ("general.type", .string("model")),
            ("general.name", .string(name)), ("general.file_type", .integer(type.fileType)),
            ("general.quantization_version", .integer(2)),
        ]
        try GGUFFile.write(general + description.settings + tokenizer, contents, to: url, replacing: replacing)
    }

    private static func storedType(of path: String, _ shape: [Int], _ type: GGUFType, outer: [String]) -> GGUFType {
        guard shape.count > 1 else { return .f32 }
        guard type.plain == nil else { return type }
        guard let width = shape.last, width.isMultiple(of: 32) else { return .f16 }
        return outer.contains { path == $0 + ".weight" } ? .q8_0 : type
    }
}
