import Foundation
import Support
import Tokenizers
import Torch
import TorchNN

extension LanguageModel {
    /// Writes `config.json`, `model.safetensors`, and `files` beside them.
    /// - Parameters:
    ///   - files: the tokenizer and the settings of generation of the folder that the model was loaded from
    ///     (``companionFiles()``) if not given; none where the list is empty.
    ///   - dtype: how weights are stored; as they are in memory by default.
    ///   - replacing: whether a folder of that name is replaced; if not, it is an error.
    /// - Throws: ``PEFTError``; the folder appears whole or not at all.
    public func save(
        to folder: URL, copying files: [FolderFile]? = nil, dtype: DType? = nil, replacing: Bool = true
    ) throws {
        try AtomicFile.writeFolder(folder, replacing: replacing) { try write(into: $0, copying: files, dtype: dtype) }
    }

    /// The same into a folder that exists, for callers that make it appear at once themselves.
    public func write(into folder: URL, copying files: [FolderFile]? = nil, dtype: DType? = nil) throws {
        var fields = describingVocabulary(configuration.object ?? [:])
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
                into: folder, size: size, maximumLength: folderSettings.maximumTextLength ?? positionLimit ?? 512)
        }
        for file in try files ?? companionFiles() { try file.write(into: folder) }
    }

    /// What a folder of this model holds beside configuration and weights: the files of the tokenizer, with its chat
    /// template, and `generation_config.json`, as they are where the model was loaded from. Nothing for other models.
    public func companionFiles() throws -> [FolderFile] {
        guard let source, FileManager.default.fileExists(atPath: source.path) else { return [] }
        let settings = source.appendingPathComponent("generation_config.json")
        let isThere = FileManager.default.fileExists(atPath: settings.path)
        return try Tokenizer.files(in: source) + (isThere ? [FolderFile(copyOf: settings)] : [])
    }
}
