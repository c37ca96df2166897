import Foundation
import LanguageModels
import PEFT
import Support
import Tokenizers
import Torch
import Training

/// A model as a command names it: with an adapter, which may say itself what base and templates it was trained with.
struct AdaptedModel {
    let model: any LanguageModel
    let tokenizer: Tokenizer
    let record: TrainingRecord?
    let adapter: Adapter?
    let folder: ModelFolder

    init(_ options: ModelOptions, adapter path: String?, merge: Bool) throws {
        let device = try options.prepare()
        guard let path else {
            var folder = try options.folder()
            record = try TrainingRecord.read(in: folder.url)
            folder = folder.classifying(record?.labels ?? [])
            model = try folder.load(device: device)
            tokenizer = try Tokenizer.load(folder: folder.url)
            (adapter, self.folder) = (nil, folder)
            return
        }
        let url = try HubFetch.adapter(path)
        let stored = try AdapterFolder(url)
        record = try TrainingRecord.read(in: url)
        let base = stored.configuration["base_model_name_or_path"]?.string
        let folder = try options.folder(default: base).classifying(record?.labels ?? [])
        self.folder = folder
        model = try folder.load(device: device)
        tokenizer = try Tokenizer.load(folder: folder.url)
        let attached = try stored.attach(to: model)
        if merge { try attached.merge() }
        adapter = attached
    }

    /// The base model of an adapter's folder, without the adapter.
    init(_ options: ModelOptions, baseOf url: URL) throws {
        let device = try options.prepare()
        record = try TrainingRecord.read(in: url)
        let json = try JSON.read(url.appendingPathComponent("adapter_config.json"))
        let base = json["base_model_name_or_path"]?.string
        folder = try options.folder(default: base).classifying(record?.labels ?? [])
        model = try folder.load(device: device)
        tokenizer = try Tokenizer.load(folder: folder.url)
        adapter = nil
    }
}
