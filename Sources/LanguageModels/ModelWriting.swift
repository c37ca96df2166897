import Foundation
import Support
import Torch
import TorchNN

extension LanguageModel {
    /// Writes `config.json` and `model.safetensors`, and `files` (the tokenizer) beside them.
    /// - Throws: ``PEFTError``; the folder appears whole or not at all.
    public func save(to folder: URL, copying files: [FolderFile] = [], dtype: DType? = nil) throws {
        try AtomicFile.writeFolder(folder) { try write(into: $0, copying: files, dtype: dtype) }
    }

    /// The same into a folder that exists, for callers that make it appear at once themselves.
    public func write(into folder: URL, copying files: [FolderFile] = [], dtype: DType? = nil) throws {
        var fields = configuration.object ?? [:]
        try checkVocabularyIsWritable()
        let keptAsStored = storedAsTheyAre
        // What is narrower than the model computes in is no measure.
        let narrow = Set(
            vocabularyPlaces.filter { $0.weight is NarrowWeight }.flatMap(\.weight.parameters).map {
                ObjectIdentifier($0.parameter)
            })
        let first = parameters().first { !narrow.contains(ObjectIdentifier($0.parameter)) }
        let stored = dtype ?? first?.parameter.tensor.dtype ?? .float32
        fields["quantization_config"] = try QuantizedFolder.configuration(of: self)
        fields["dtype"] = .string(stored.rawValue)
        fields["torch_dtype"] = nil
        try AtomicFile.write(JSON.object(fields).text() + "\n", to: folder.appendingPathComponent("config.json"))
        let tensors = parameters().map { path, parameter in
            let tensor = parameter.tensor.detached()
            return (path, keptAsStored.contains(ObjectIdentifier(parameter)) ? tensor : tensor.to(stored))
        }
        try withTorchErrors {
            try SafetensorsFile.write(
                Dictionary(tensors, uniquingKeysWith: { first, _ in first }), metadata: ["format": "pt"],
                to: folder.appendingPathComponent("model.safetensors"))
        }
        if head.task == .embeddings, let size = fields["hidden_size"]?.int ?? fields["dim"]?.int {
            try head.pooling.write(
                into: folder, size: size, maximumLength: fields["max_position_embeddings"]?.int ?? 512)
        }
        for file in files { try file.write(into: folder) }
    }
}
