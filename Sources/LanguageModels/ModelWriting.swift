import Foundation
import PEFTSupport
import PEFTTokenizers
import Torch
import TorchNN

extension LanguageModel {
    /// Saves the model as `config.json` and `model.safetensors`, with the tokenizer and the generation settings of the
    /// folder that it was loaded from.
    /// - Parameters:
    ///   - folder: the new folder.
    ///   - dtype: storage dtype of the weights; by default as in memory.
    ///   - replacing: whether an existing folder is replaced; otherwise it is an error.
    /// - Throws: ``PEFTError``; the folder is written atomically.
    public func save(to folder: URL, dtype: DType? = nil, replacing: Bool = true) throws {
        try AtomicFile.writeFolder(folder, replacing: replacing) { try write(into: $0, dtype: dtype) }
    }

    /// Saves the model with other companion files.
    package func save(to folder: URL, copying files: [FolderFile], dtype: DType? = nil, replacing: Bool = true) throws
    {
        try AtomicFile.writeFolder(folder, replacing: replacing) { try write(into: $0, copying: files, dtype: dtype) }
    }

    /// Writes the model into an existing folder, for callers that handle atomicity themselves.
    package func write(into folder: URL, copying files: [FolderFile]? = nil, dtype: DType? = nil) throws {
        var fields = describingVocabulary(configuration.object ?? [:])
        try checkVocabularyIsWritable()
        let keptAsStored = storedAsTheyAre
        // 16-bit weights that are upcast for computing don't determine the model's dtype.
        let narrow = Set(
            vocabularyPlaces.filter { $0.weight.precision == .half }.flatMap(\.weight.parameters).map {
                ObjectIdentifier($0.parameter)
            })
        let first = parameters().first { !narrow.contains(ObjectIdentifier($0.parameter)) }
        let stored = dtype ?? first?.parameter.tensor.dtype ?? .float32
        fields["quantization_config"] = try QuantizedFolder.configuration(of: self)
        fields["dtype"] = .string(stored.rawValue)
        fields["torch_dtype"] = nil
        try AtomicFile.write(JSON.object(fields).text() + "\n", to: folder.appendingPathComponent("config.json"))
        try withTorchErrors {
            let tensors = parameters().map { path, parameter in
                let tensor = parameter.tensor.detached()
                return (path, keptAsStored.contains(ObjectIdentifier(parameter)) ? tensor : tensor.to(stored))
            }
            let others = try otherPartTensors()
            let named = modelFamily.modules.experts.map { $0.separated($0.unpacked(tensors)) } ?? tensors
            try SafetensorsFile.write(
                Dictionary(named + others.map { ($0.key, $0.value) }, uniquingKeysWith: { first, _ in first }),
                metadata: ["format": "pt"],
                to: folder.appendingPathComponent("model.safetensors"))
        }
        if head.task == .embeddings, let size = fields["hidden_size"]?.int ?? fields["dim"]?.int {
            try head.pooling.write(
                into: folder, size: size, maximumLength: folderSettings.maximumTextLength ?? positionLimit ?? 512,
                denses: folderSettings.denses)
        }
        for file in try files ?? companionFiles() { try file.write(into: folder) }
    }

    /// The tokenizer files with the chat template, and `generation_config.json`, from the folder that the model was
    /// loaded from; empty for other models.
    package func companionFiles() throws -> [FolderFile] {
        guard let source, FileManager.default.fileExists(atPath: source.path) else { return [] }
        let settings = source.appendingPathComponent("generation_config.json")
        let isThere = FileManager.default.fileExists(atPath: settings.path)
        return try Tokenizer.files(in: source) + (isThere ? [FolderFile(copyOf: settings)] : [])
    }
}
