import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Training

/// `--from-adapter`: the adapter whose training continues, with its parameters and settings.
struct StartingAdapter {
    let adapter: AdapterFolder
    let base: AdapterBase
    /// The settings it was trained with, whose templates and labels are the defaults.
    let record: TrainingRecord?

    /// - Throws: ``PEFTError`` if there is no adapter.
    init(_ path: String) throws {
        let url = try HubFetch.adapter(path)
        let isModel = FileManager.default.fileExists(atPath: url.appendingPathComponent("config.json").path)
        let isAdapter = FileManager.default.fileExists(atPath: url.appendingPathComponent("adapter_config.json").path)
        guard isAdapter || !isModel else {
            throw PEFTError(
                "--from-adapter \(path) is a full model, not an adapter",
                remedy: "continue training it with --model \(path)")
        }
        adapter = try AdapterFolder(url)
        base = AdapterBase(adapter.configuration, of: url)
        record = try TrainingRecord.read(in: url)
        for note in adapter.notes { Console.note(note) }
    }

    /// The adapter's method and settings.
    /// - Throws: ``PEFTError`` for an option that differs from them.
    func choice(method name: String?, _ options: MethodOptions) throws -> MethodChoice {
        let choice = adapter.choice
        if let name {
            let method = try PEFTMethods.named(name)
            // Some methods save as another: a PiSSA adapter is saved as a plain LoRA.
            guard method.name == choice.method.name || method.name == record?.method else {
                throw PEFTError(
                    "--method is \(name), but the adapter \(adapter.url.path) is of method \(choice.method.name)",
                    remedy: "remove --method or --from-adapter")
            }
        }
        for (option, value) in options.given.map({ ($0.name, $0.value) }) {
            var changed = choice
            try changed.set(option, to: value)
            let (current, requested) = (
                choice.configuration.named[option] ?? .null, changed.configuration.named[option] ?? .null
            )
            guard Self.isSame(current, requested) else {
                throw PEFTError(
                    "--\(option) is \(value), but the adapter \(adapter.url.path) has \(current.text(indent: nil))",
                    remedy: "remove --\(option) or --from-adapter")
            }
        }
        return choice
    }

    private static func isSame(_ a: JSON, _ b: JSON) -> Bool {
        if let a = a.double, let b = b.double { return a == b }
        return a == b
    }

    /// The base model, with the adapter's head.
    func folder(_ options: ModelOptions) throws -> ModelFolder {
        let plain = try base.folder(
            options, weights: record?.baseStorage ?? adapter.choice.baseStorage, embeddings: record?.embeddingStorage)
        return plain.with(record?.trainedHead ?? adapter.head(on: plain))
    }

    func attach(to model: any LanguageModel) throws -> Adapter {
        if let note = try adapter.vocabularyNote(on: model) { Console.note(note) }
        let attached = try adapter.attach(to: model, isTrainable: true)
        guard !attached.parameters.isEmpty else {
            throw PEFTError(
                "\(adapter.url.path) is \(adapter.choice.label), which has nothing to train",
                remedy: "train its adapters, and combine them again")
        }
        return attached
    }

    /// The adapter's own tokenizer files, to copy to the output.
    func tokenizerFiles() throws -> [FolderFile] { try Tokenizer.files(in: adapter.url) }
}
