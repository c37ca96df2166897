import ArgumentParser
import Foundation
import LanguageModels
import PEFT
import Support
import Torch

struct ConvertCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "convert",
        abstract:
            "Turn adapters of other programs and older versions into Hugging Face's present format, or into GGUF.",
        discussion: """
            peft convert old-adapter --output new-adapter
            peft convert my-adapter --to gguf --output my-adapter.gguf
            peft convert my-adapter.gguf --model my-model --output my-adapter
            peft convert gpt2_md_lora_e2e.pt --model gpt2-medium --alpha 32 --enable-lora true,false,true --output e2e

            Reads folders with adapter_model.bin or older names and settings, and loralib's state dictionaries (.pt,
            .bin, .safetensors), and llama.cpp's GGUF adapters, which are written too. Pickles are read without running anything: what could run code is refused.
            """)

    @Argument(help: "An adapter's folder, a file that loralib wrote, or a GGUF adapter.") var source: String
    @OptionGroup var model: ModelOptions
    @Option(help: ArgumentHelp("loralib's alpha, which its files don't hold.", valueName: "x")) var alpha: Double?
    @Option(help: ArgumentHelp("Adapted parts of fused projections, such as true,false,true.", valueName: "list"))
    var enableLora: String?
    @Option(help: "peft (Hugging Face's layout), or llama.cpp's gguf, gguf-f16 or gguf-bf16 (peft).") var to = "peft"
    @Option(name: .shortAndLong, help: ArgumentHelp("Folder or GGUF file for the adapter.", valueName: "path"))
    var output: String
    @Flag(help: "Print the result as JSON.") var json = false

    func run() throws {
        let local = URL(fileURLWithPath: NSString(string: source).expandingTildeInPath)
        let url = FileManager.default.fileExists(atPath: local.path) ? local : try HubFetch.adapter(source)
        let target = URL(fileURLWithPath: NSString(string: output).expandingTildeInPath)
        guard !FileManager.default.fileExists(atPath: target.path) else {
            throw PEFTError("the output \(output) exists", remedy: "remove it or name another one")
        }
        if let type = try GGUFTarget.type(to, usual: .f32, among: [.f32, .f16, .bf16]) {
            return try writeGGUF(url, target, type)
        }
        guard to.lowercased() == "peft" else {
            throw UsageError("--to is '\(to)'", remedy: "there are peft, gguf, gguf-f16 and gguf-bf16")
        }
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) else {
            throw PEFTError("there is no \(source)", remedy: "name an adapter's folder or a file of loralib")
        }
        if isFolder.boolValue {
            try convertFolder(url, target)
        } else {
            try GGUFHeader.isName(url) ? readGGUF(url, target) : convertLoralib(url, target)
        }
        let folder = try AdapterFolder(target)
        guard json else {
            return print(
                "\(folder.choice.label), \(counted(folder.tensorShapes.count, "tensor")), saved to \(output)")
        }
        print(
            JSON.object([
                "adapter": .string(folder.choice.label), "tensors": .integer(folder.tensorShapes.count),
                "output": .string(output),
            ]).text())
    }

    private func convertFolder(_ url: URL, _ target: URL) throws {
        let (configuration, tensors) = try AdapterConversion.olderFolder(url)
        try write(configuration, tensors, target) { written in
            if model.model != nil { _ = try written.attach(to: model.folder().load()) }
        }
    }

    private func writeGGUF(_ url: URL, _ target: URL, _ type: GGUFType) throws {
        guard GGUFHeader.isName(target) else {
            throw UsageError("the output \(output) is to be a GGUF file", remedy: "end its name in .gguf")
        }
        let folder = try AdapterFolder(url)
        let base = folder.configuration["base_model_name_or_path"]?.string
        let model = try model.folder(default: base).outline()
        try GGUFAdapter.write(folder, on: model, type: type, to: target)
        let count = folder.tensorShapes.count
        guard json else { return print("\(folder.choice.label), \(counted(count, "tensor")), saved to \(output)") }
        print(
            JSON.object([
                "adapter": .string(folder.choice.label), "tensors": .integer(count), "output": .string(output),
            ]).text())
    }

    private func readGGUF(_ url: URL, _ target: URL) throws {
        guard let name = model.model else {
            throw UsageError("--model is missing", remedy: "name the base model that the adapter was trained on")
        }
        let outline = try model.folder().outline()
        let (fields, tensors) = try GGUFAdapter.read(url, on: outline)
        var configuration = fields
        configuration["base_model_name_or_path"] = .string(name)
        try write(configuration, tensors, target) { _ = try $0.attach(to: outline) }
    }

    /// Writes a folder that appears if it reads back.
    private func write(
        _ configuration: [String: JSON], _ tensors: [String: Tensor], _ target: URL,
        check: (AdapterFolder) throws -> Void
    ) throws {
        try AtomicFile.writeFolder(target) { folder in
            try AtomicFile.write(
                JSON.object(configuration).text() + "\n", to: folder.appendingPathComponent("adapter_config.json"))
            try SafetensorsFile.write(
                tensors, metadata: ["format": "pt"], to: folder.appendingPathComponent("adapter_model.safetensors"))
            try check(AdapterFolder(folder))
        }
    }

    private func convertLoralib(_ url: URL, _ target: URL) throws {
        guard let alpha else {
            throw UsageError(
                "--alpha is missing", remedy: "give the lora_alpha that loralib was told; its files don't hold it")
        }
        guard alpha > 0 else { throw UsageError("--alpha is \(alpha)", remedy: "it has to be above 0") }
        let enabled = try enableLora.map { text in
            try text.split(separator: ",").map { part -> Bool in
                switch part.trimmingCharacters(in: .whitespaces).lowercased() {
                case "true", "1": return true
                case "false", "0": return false
                default: throw UsageError("--enable-lora '\(text)'", remedy: "write such as true,false,true")
                }
            }
        }
        guard let name = model.model else {
            throw UsageError("--model is missing", remedy: "name the base model that the adapter was trained on")
        }
        let adapter = try AdapterConversion.loralib(url, on: model.folder().load(), alpha: alpha, enabled: enabled)
        try adapter.save(to: target, base: name)
    }
}
