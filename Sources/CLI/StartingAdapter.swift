import Foundation
import LanguageModels
import PEFT
import Support
import Tokenizers
import Training

/// The adapter that a training goes on from, `--from-adapter`: its values are the start, and its settings hold.
struct StartingAdapter {
    let adapter: AdapterFolder
    let base: AdapterBase
    /// What it was trained with, whose templates and labels hold where none are given.
    let record: TrainingRecord?

    /// - Throws: ``PEFTError`` if there is no adapter.
    init(_ path: String) throws {
        let url = try HubFetch.adapter(path)
        let isModel = FileManager.default.fileExists(atPath: url.appendingPathComponent("config.json").path)
        let isAdapter = FileManager.default.fileExists(atPath: url.appendingPathComponent("adapter_config.json").path)
        guard isAdapter || !isModel else {
            throw PEFTError(
                "--from-adapter \(path) is a whole model and no adapter",
                remedy: "train on from it with --model \(path)")
        }
        adapter = try AdapterFolder(url)
        base = AdapterBase(adapter.configuration, of: url)
        record = try TrainingRecord.read(in: url)
        for note in adapter.notes { Console.note(note) }
    }

    /// The adapter's method and settings.
    /// - Throws: ``PEFTError`` naming an option that contradicts them.
    func choice(method name: String?) throws -> MethodChoice {
        let choice = adapter.choice
        if let name {
            let method = try PEFTMethods.named(name)
            // Some methods leave a file of another: what PiSSA trained is a plain LoRA.
            guard method.name == choice.method.name || method.name == record?.method else {
                throw PEFTError(
                    "--method is \(name), and the adapter \(adapter.url.path) is of the method \(choice.method.name)",
                    remedy: "leave --method out, or start without --from-adapter")
            }
        }
        for (option, value) in MethodArguments.given {
            var changed = choice
            try changed.set(option, to: value)
            let (own, wanted) = (
                choice.configuration.named[option] ?? .null, changed.configuration.named[option] ?? .null
            )
            guard Self.isSame(own, wanted) else {
                throw PEFTError(
                    "--\(option) is \(value), and the adapter \(adapter.url.path) has \(own.text(indent: nil))",
                    remedy: "leave --\(option) out, or start without --from-adapter")
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
            options, keeping: record?.baseStorage ?? adapter.choice.baseStorage, embeddings: record?.embeddingStorage)
        return plain.with(record?.trainedHead ?? adapter.head(on: plain))
    }

    func attach(to model: any LanguageModel) throws -> Adapter {
        if let note = try adapter.vocabularyNote(on: model) { Console.note(note) }
        return try adapter.attach(to: model, isTrainable: true)
    }

    /// The adapter's own tokenizer, to lie beside what is trained.
    func tokenizerFiles() throws -> [FolderFile] { try Tokenizer.files(in: adapter.url) }
}
