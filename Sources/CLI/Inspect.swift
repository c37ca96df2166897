import ArgumentParser
import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch

struct Inspect: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show the contents of a model or an adapter, and what a method would train.",
        discussion: """
            peft inspect google/flan-t5-base --method lora --rank 32 --targets q,v
            peft inspect config.json --method lora --rank 32
            peft inspect my-adapter

            A config.json without weights is sufficient.
            """)

    @Argument(help: "Model folder, GGUF file, Hugging Face Hub name, config.json, or adapter folder.") var path:
        String =
            ModelLocator.embedded
    @Option(help: "Fine-tuning method to plan; see peft methods.") var method: String?
    @OptionGroup var options: MethodOptions
    @Flag(help: "List all tensors.") var tensors = false
    @Flag(help: "Print the result as JSON.") var json = false

    func run() throws {
        let local = URL(fileURLWithPath: NSString(string: path).expandingTildeInPath)
        var isFolder: ObjCBool = false
        let exists = FileManager.default.fileExists(atPath: local.path, isDirectory: &isFolder)
        if exists, !isFolder.boolValue,
            ["npy", "safetensors", "bin", "pt"].contains(local.pathExtension.lowercased())
        {
            throw PEFTError(
                "\(path) is a \(SoftPromptFile.isName(local) ? "soft prompt" : "weight file"), not a folder or a model's config.json",
                remedy: "use its folder, or convert it to an adapter with peft convert")
        }
        if exists, !isFolder.boolValue, !GGUFHeader.isName(local) {
            return try inspectModel(
                ModelRegistry.outline(JSON.read(local, tagsInfinity: true), file: local.path), nil)
        }
        let url = exists ? local : try HubFetch.folder(path, needing: .description)
        if FileManager.default.fileExists(atPath: url.appendingPathComponent("adapter_config.json").path) {
            return try inspectAdapter(exists ? local : HubFetch.adapter(path))
        }
        let folder = try ModelFolder(url)
        try inspectModel(folder.outline(), folder)
    }

    private func inspectModel(_ model: any LanguageModel, _ folder: ModelFolder?) throws {
        let outline = ModelOutline(model)
        let components = Self.components(outline)
        var result: [String: JSON] = [
            "family": .string(outline.family), "parameters": .integer(outline.parameterCount),
            "components": .object(components.reduce(into: [:]) { $0[$1.name] = .integer($1.count) }),
            "linears": .integer(outline.linears.count),
        ]
        if let folder { result["weightBytes"] = .integer(folder.weightBytes) }
        var lines = ["\(outline.family), \(Console.grouped(outline.parameterCount)) parameters"]
        if let folder, folder.weightBytes > 0 { lines[0] += ", weights \(Console.bytes(folder.weightBytes)) on disk" }
        for (name, count) in components {
            let share = Double(count) / Double(max(1, outline.parameterCount)) * 100
            lines.append(
                "  \(name.padding(toLength: 14, withPad: " ", startingAt: 0)) \(Self.right(Console.grouped(count), 15))  "
                    + String(format: "%5.1f %%", share))
        }
        var sites: [String: (count: Int, shape: String)] = [:]
        for site in outline.linears {
            let name = site.path.split(separator: ".").last.map(String.init) ?? site.path
            sites[name, default: (0, "\(site.inputs) → \(site.outputs)")].count += 1
        }
        lines.append("projections, which --targets can name:")
        for (name, site) in sites.sorted(by: { $0.key < $1.key }) {
            lines.append(
                "  \(name.padding(toLength: 14, withPad: " ", startingAt: 0)) \(site.count) of \(site.shape)")
        }
        if let method {
            let choice = try options.choice(method)
            let attachments = try choice.plan(for: outline)
            let plan = PlanSummary(attachments, outline: outline)
            RunWarnings.show(RunWarnings.layers(choice, outline))
            result["plan"] = [
                "method": .string(choice.method.name), "label": .string(choice.label),
                "trainable": .integer(plan.trainable), "total": .integer(plan.total), "share": .number(plan.share),
                "sites": .integer(attachments.count),
            ]
            lines.append(
                "\(choice.label): \(Console.grouped(plan.trainable)) of \(Console.grouped(plan.total)) parameters are trainable "
                    + String(format: "(%.2f %%)", plan.share * 100) + ", \(counted(attachments.count, "target"))")
        } else if let extra = options.given.first {
            throw UsageError("--\(extra.name) requires --method", remedy: "add --method, such as --method lora")
        }
        if tensors {
            result["tensors"] = .object(
                outline.parameters.reduce(into: [:]) { $0[$1.path] = .array($1.shape.map { .integer($0) }) })
            lines += outline.parameters.map { "  \($0.path)  \($0.shape)" }
        }
        print(json ? JSON.object(result).text() : lines.joined(separator: "\n"))
    }

    private func inspectAdapter(_ url: URL) throws {
        let folder = try AdapterFolder(url)
        let entries = folder.tensorShapes
        let count = entries.reduce(0) { $0 + $1.shape.reduce(1, *) }
        let base = folder.configuration["base_model_name_or_path"]?.string ?? "unknown"
        var result: [String: JSON] = [
            "method": .string(folder.choice.method.name), "label": .string(folder.choice.label),
            "base": .string(base),
            "parameters": .integer(count), "tensors": .integer(entries.count),
            "configuration": .object(folder.configuration),
        ]
        var lines = [
            "\(folder.choice.label), an adapter for \(base)",
            "  \(counted(count, "parameter")) in \(counted(entries.count, "tensor"))",
        ]
        for (key, value) in folder.choice.configuration.named.sorted(by: { $0.key < $1.key })
        where value != .null && value != [:] {
            lines.append("  \(key.padding(toLength: 16, withPad: " ", startingAt: 0)) \(value.text(indent: nil))")
        }
        if !folder.notes.isEmpty {
            result["notes"] = .array(folder.notes.map { .string($0) })
            lines += folder.notes.map { "note: \($0)" }
        }
        if tensors {
            result["shapes"] = .object(
                entries.reduce(into: [:]) { $0[$1.name] = .array($1.shape.map { .integer($0) }) })
            lines += entries.map { "  \($0.name)  \($0.shape)" }
        }
        print(json ? JSON.object(result).text() : lines.joined(separator: "\n"))
    }

    private static func right(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    /// Parameter counts by component.
    private static func components(_ outline: ModelOutline) -> [(name: String, count: Int)] {
        var counts: [Component: Int] = [:]
        for parameter in outline.parameters { counts[parameter.component, default: 0] += parameter.count }
        return counts.sorted { $0.value > $1.value }.map { ($0.key.rawValue, $0.value) }
    }
}
