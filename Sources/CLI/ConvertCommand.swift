import ArgumentParser
import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Torch
import Training

struct ConvertCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "convert",
        abstract: "Convert adapters of other tools to the Hugging Face PEFT format, or to AdapterHub's, MLX or GGUF.",
        discussion: """
            peft convert old-adapter --output new-adapter
            peft convert my-adapter --to gguf --output my-adapter.gguf
            peft convert my-adapter.gguf --model my-model --output my-adapter
            peft convert gpt2_md_lora_e2e.pt --model gpt2-medium --alpha 32 --enable-lora true,false,true --output e2e

            peft convert mlx-adapter --model my-model --output my-adapter
            peft convert my-adapter --to mlx --output mlx-adapter
            peft convert my-adapter --to adapterhub --output hub-adapter
            peft convert prompt.npy --model google/t5-small-lm-adapt --output my-prompt

            Reads Hugging Face adapters of older versions, with pickled or sharded weights, with the prefixes of
            torch.compile, FSDP and DistributedDataParallel, or in a trainer's checkpoints (the latest one); state
            dictionaries of loralib (.pt, .bin, .safetensors); soft prompts as arrays (.npy); and adapters of AdapterHub
            (LoRA, (IA)³, bottlenecks, prefixes), of mlx-lm and of llama.cpp (GGUF), whose formats it also writes. With --model the result is checked against the base model.
            Pickle files are read without executing code; those that contain code are rejected.
            """)

    @Argument(help: "Adapter folder, loralib file, GGUF adapter, or soft prompt (.npy).") var source: String
    @OptionGroup var model: ModelOptions
    @Option(help: ArgumentHelp("LoRA alpha of a loralib file, which does not contain it.", valueName: "x")) var alpha:
        Double?
    @Option(
        help: ArgumentHelp(
            "Adapted parts of fused projections in a loralib file, such as true,false,true.", valueName: "list"))
    var enableLora: String?
    @Option(
        help:
            "Output format: peft (Hugging Face layout), adapterhub, mlx, or for llama.cpp gguf, gguf-f16 or gguf-bf16."
    )
    var to =
        "peft"
    @Option(
        name: .shortAndLong, help: ArgumentHelp("Output folder, or .gguf file, for the adapter.", valueName: "path"))
    var output: String
    @Flag(help: "Print the result as JSON.") var json = false

    func run() throws {
        let local = URL(fileURLWithPath: NSString(string: source).expandingTildeInPath)
        let url = FileManager.default.fileExists(atPath: local.path) ? local : try HubFetch.adapter(source)
        let type = try GGUFTarget.type(to, usual: .f32, among: [.f32, .f16, .bf16])
        let target = try GGUFTarget.output(output, as: type)
        if let type { return try writeGGUF(url, target, type) }
        if to.lowercased() == "mlx" { return try writeMLX(url, target) }
        if to.lowercased() == "adapterhub" { return try writeAdapterHub(url, target) }
        guard to.lowercased() == "peft" else {
            throw UsageError(
                "unknown --to '\(to)'", remedy: "use one of peft, adapterhub, mlx, gguf, gguf-f16, gguf-bf16")
        }
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) else {
            throw PEFTError("\(source) doesn't exist", remedy: "use an adapter folder or a loralib file")
        }
        if isFolder.boolValue {
            try convertFolder(url, target)
        } else if GGUFHeader.isName(url) {
            try readGGUF(url, target)
        } else if SoftPromptFile.isName(url) {
            let prompt = try SoftPromptFile.read(url, on: model.folder(default: baseName()).load())
            try write(prompt, target, base: baseName())
        } else if ["adapter_model", "adapters"].contains(url.deletingPathExtension().lastPathComponent) {
            try convertFolder(url.deletingLastPathComponent(), target)
        } else {
            try convertLoralib(url, target)
        }
        let folder = try AdapterFolder(target)
        report(folder, tensors: folder.tensorShapes.count)
    }

    /// The base model that `--model` names.
    private func baseName() throws -> String {
        guard let name = model.model else {
            throw PEFTError("--model is missing", remedy: "add the base model that the adapter was trained on")
        }
        return name
    }

    private func convertFolder(_ source: URL, _ target: URL) throws {
        let (url, note) = AdapterFiles.locate(source)
        if let note { Console.note(note) }
        if AdapterFiles.isMLX(url) {
            // mlx-lm stores the base model's name under another key.
            let named = try JSON.read(url.appendingPathComponent("adapter_config.json"))["model"] ?? .null
            let base = AdapterBase(["base_model_name_or_path": named], of: url)
            let outline = try base.folder(model).outline()
            var (configuration, tensors) = try MLXAdapter.read(url, on: outline)
            configuration["base_model_name_or_path"] = .string(try base.name(model))
            return try write(configuration, tensors, target, from: url) { _ = try $0.attach(to: outline) }
        }
        if AdapterHubAdapter.isOne(url) {
            let name = try baseName()
            let folder = try model.folder()
            if try folder.lacksHead() {
                throw PEFTError(
                    "adapters of AdapterHub act beneath the base's head, but \(name) has none that is trained",
                    remedy: "name the model that the adapter's head belongs to with --model")
            }
            let outline = try folder.outline()
            let base = outline.newModules.isEmpty ? outline : try folder.load()
            var (configuration, tensors) = try AdapterHubAdapter.read(url, on: base)
            configuration["base_model_name_or_path"] = .string(name)
            return try write(configuration, tensors, target, from: url) { _ = try $0.attach(to: outline) }
        }
        var (configuration, tensors) = try AdapterConversion.olderFolder(url)
        guard let name = model.model else {
            guard tensors.keys.contains(where: { $0.hasPrefix("base_model.") || $0 == "prompt_embeddings" }) else {
                throw PEFTError(
                    "tensor names in \(url.path) lack the prefix of the Hugging Face format, such as '\(tensors.keys.sorted()[0])'",
                    remedy: "add --model, to match them with the modules of the base model")
            }
            Console.note("the adapter was not checked against its base model; add --model to check it")
            return try write(configuration, tensors, target, from: url)
        }
        if AdapterBase(configuration, of: url).name == nil {
            configuration["base_model_name_or_path"] = .string(name)
        }
        try write(configuration, tensors, target, from: url) { written in
            let plain = try model.folder()
            let base = try plain.with(written.head(on: plain)).load()
            if let note = try written.vocabularyNote(on: base) { Console.note(note) }
            try SafetensorsFile.write(
                written.canonicalTensors(on: base), metadata: ["format": "pt"],
                to: written.url.appendingPathComponent("adapter_model.safetensors"))
            try AdapterFolder(written.url).attach(to: base).deactivate()
        }
    }

    private func writeGGUF(_ url: URL, _ target: URL, _ type: GGUFFormat) throws {
        let folder = try AdapterFolder(url)
        let model = try AdapterBase(folder.configuration, of: url).folder(model).outline()
        try GGUFAdapter.write(folder, on: model, type: type, to: target, replacing: false)
        report(folder, tensors: folder.tensorShapes.count)
    }

    private func writeMLX(_ url: URL, _ target: URL) throws {
        let folder = try AdapterFolder(url)
        let base = AdapterBase(folder.configuration, of: url)
        var (configuration, tensors) = try MLXAdapter.converted(folder, on: base.folder(model).outline())
        configuration["model"] = .string(try base.name(model))
        try AtomicFile.writeFolder(target, replacing: false) { folder in
            try AtomicFile.write(
                JSON.object(configuration).text() + "\n", to: folder.appendingPathComponent("adapter_config.json"))
            try SafetensorsFile.write(
                tensors, metadata: ["format": "mlx"], to: folder.appendingPathComponent("adapters.safetensors"))
            for file in try Tokenizer.files(in: url) { try file.write(into: folder) }
        }
        report(folder, tensors: tensors.count)
    }

    private func writeAdapterHub(_ url: URL, _ target: URL) throws {
        let folder = try AdapterFolder(url)
        let base = AdapterBase(folder.configuration, of: url)
        let name = target.lastPathComponent.replacing(".", with: "-")
        let outline = try base.folder(model).outline()
        if let (setup, parts) = try AdapterHubAdapter.convertedComposition(folder, on: outline) {
            let named: JSON = .string(try base.name(model))
            try AtomicFile.writeFolder(target, replacing: false) { folder in
                try AtomicFile.write(setup.text() + "\n", to: folder.appendingPathComponent("adapter_setup.json"))
                for part in parts {
                    let own = folder.appendingPathComponent(part.folder)
                    try FileManager.default.createDirectory(at: own, withIntermediateDirectories: true)
                    let json = part.configuration.merging(["model_name": named]) { $1 }
                    try AtomicFile.write(
                        JSON.object(json).text() + "\n", to: own.appendingPathComponent(part.settingsFile))
                    try SafetensorsFile.write(
                        part.tensors, metadata: ["format": "pt"], to: own.appendingPathComponent(part.tensorsFile))
                }
            }
            return report(folder, tensors: parts.reduce(0) { $0 + $1.tensors.count })
        }
        var (configuration, tensors) = try AdapterHubAdapter.converted(folder, named: name, on: outline)
        if !outline.newModules.isEmpty {
            Console.note(
                "the trained head is not in the folder, as AdapterHub's adapters are used beneath the model's own")
        }
        configuration["model_name"] = .string(try base.name(model))
        try AtomicFile.writeFolder(target, replacing: false) { folder in
            try AtomicFile.write(
                JSON.object(configuration).text() + "\n", to: folder.appendingPathComponent("adapter_config.json"))
            try SafetensorsFile.write(
                tensors, metadata: ["format": "pt"], to: folder.appendingPathComponent(AdapterHubAdapter.safetensors))
        }
        report(folder, tensors: tensors.count)
    }

    private func report(_ folder: AdapterFolder, tensors: Int) {
        guard json else {
            return print("\(folder.choice.label), \(counted(tensors, "tensor")), saved to \(output)")
        }
        print(
            JSON.object([
                "adapter": .string(folder.choice.label), "tensors": .integer(tensors), "output": .string(output),
            ]).text())
    }

    private func readGGUF(_ url: URL, _ target: URL) throws {
        let name = try baseName()
        let outline = try model.folder().outline()
        let (fields, tensors) = try GGUFAdapter.read(url, on: outline)
        var configuration = fields
        configuration["base_model_name_or_path"] = .string(name)
        try write(configuration, tensors, target, from: url) { _ = try $0.attach(to: outline) }
    }

    /// Writes the adapter folder atomically after reading it back, with the tokenizer and the training record of the source.
    private func write(
        _ configuration: [String: JSON], _ tensors: [String: Tensor], _ target: URL, from source: URL,
        check: (AdapterFolder) throws -> Void = { _ in }
    ) throws {
        let record = source.appendingPathComponent(TrainingRecord.fileName)
        var files = GGUFHeader.isName(source) ? [] : try Tokenizer.files(in: source)
        if FileManager.default.fileExists(atPath: record.path) { files.append(FolderFile(copyOf: record)) }
        // A card that somebody wrote is kept.
        let card = source.appendingPathComponent(ModelCard.fileName)
        if !GGUFHeader.isName(source), FileManager.default.fileExists(atPath: card.path) {
            files.append(FolderFile(copyOf: card))
        }
        try AtomicFile.writeFolder(target, replacing: false) { folder in
            try AtomicFile.write(
                JSON.object(configuration).text() + "\n", to: folder.appendingPathComponent("adapter_config.json"))
            try SafetensorsFile.write(
                tensors, metadata: ["format": "pt"], to: folder.appendingPathComponent("adapter_model.safetensors"))
            for file in files { try file.write(into: folder) }
            try ModelCard.write(into: folder, name: target.lastPathComponent, record: TrainingRecord.read(in: folder))
            do {
                let written = try AdapterFolder(folder)
                for note in written.notes { Console.note(note) }
                try check(written)
            } catch let error as PEFTError {
                // Name the source in errors, not the temporary folder.
                throw PEFTError(
                    error.problem.replacing(folder.path, with: source.path),
                    remedy: error.remedy?.replacing(folder.path, with: source.path))
            }
        }
    }

    private func convertLoralib(_ url: URL, _ target: URL) throws {
        guard let alpha else {
            throw UsageError(
                "--alpha is missing", remedy: "add the lora_alpha used in training; loralib files don't contain it")
        }
        guard alpha > 0 else { throw UsageError("--alpha must be positive (got \(alpha))") }
        let enabled = try enableLora.map { text in
            try text.split(separator: ",").map { part -> Bool in
                switch part.trimmingCharacters(in: .whitespaces).lowercased() {
                case "true", "1": return true
                case "false", "0": return false
                default:
                    throw UsageError("invalid --enable-lora '\(text)'", remedy: "use a form such as true,false,true")
                }
            }
        }
        let name = try baseName()
        let (adapter, notes) = try AdapterConversion.loralib(
            url, on: model.folder().load(), alpha: alpha, enabled: enabled)
        for note in notes { Console.note(note) }
        try write(adapter, target, base: name)
    }

    /// Writes an adapter with a model card.
    private func write(_ adapter: Adapter, _ target: URL, base: String) throws {
        try AtomicFile.writeFolder(target, replacing: false) { folder in
            try adapter.write(into: folder, base: base)
            try ModelCard.write(into: folder, name: target.lastPathComponent)
        }
    }
}
