import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Torch
import Training

/// The model of a command, with its adapter, if any. The adapter may name its base model and templates.
struct AdaptedModel {
    let model: any LanguageModel
    let tokenizer: Tokenizer
    let record: TrainingRecord?
    let adapter: Adapter?
    let folder: ModelFolder
    /// The folder of the tokenizer and chat template: the adapter's if it has its own, else the model's.
    let tokenizerFolder: URL

    /// - Parameters:
    ///   - task: the model's task, if neither the model nor the adapter specifies it.
    ///   - generates: whether text is generated, so that weights are kept as stored if nothing else specifies their format.
    init(
        _ options: ModelOptions, adapter path: String?, merge: Bool, task: TaskChoice = TaskChoice(),
        generates: Bool = false
    ) throws {
        let keepsStored = generates && !merge && options.mayKeepStoredWeights
        let device = try options.prepare()
        guard let path else {
            var folder = try options.folder()
            if keepsStored { folder = folder.keepingStoredWeights() }
            record = try TrainingRecord.read(in: folder.url)
            folder = try folder.with(
                record?.trainedHead
                    ?? task.task.flatMap { _ in
                        try task.head(for: folder, rows: [])
                    })
            model = try folder.load(device: device)
            tokenizer = try Tokenizer.load(folder: folder.url)
            (adapter, self.folder, tokenizerFolder) = (nil, folder, folder.url)
            return
        }
        let url = try HubFetch.adapter(path)
        let stored = try AdapterFolder(url)
        record = try TrainingRecord.read(in: url)
        for note in stored.notes { Console.note(note) }
        var plain = try AdapterBase(stored.configuration, of: url).folder(
            options, weights: record?.baseStorage, embeddings: record?.embeddingStorage)
        if keepsStored { plain = plain.keepingStoredWeights(packsOutput: !stored.replacesValues) }
        let folder = plain.with(record?.trainedHead ?? stored.head(on: plain))
        self.folder = folder
        model = try folder.load(device: device)
        tokenizerFolder = try AdapterBase.tokenizerFolder(url, base: folder)
        tokenizer = try Tokenizer.load(folder: tokenizerFolder)
        if let note = try stored.vocabularyNote(on: model) { Console.note(note) }
        let attached = try stored.attach(to: model)
        if merge { try attached.merge() }
        adapter = attached
    }

    /// The base model of an adapter's folder, without the adapter.
    init(_ options: ModelOptions, baseOf url: URL) throws {
        let device = try options.prepare()
        record = try TrainingRecord.read(in: url)
        let json = try JSON.read(url.appendingPathComponent("adapter_config.json"))
        let plain = try AdapterBase(json.object ?? [:], of: url).folder(
            options, weights: record?.baseStorage, embeddings: record?.embeddingStorage)
        folder = plain.with(record?.trainedHead ?? (try? AdapterFolder(url))?.head(on: plain))
        model = try folder.load(device: device)
        tokenizerFolder = try AdapterBase.tokenizerFolder(url, base: folder)
        tokenizer = try Tokenizer.load(folder: tokenizerFolder)
        adapter = nil
    }
}
