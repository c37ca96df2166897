import Foundation
import PEFTSupport
import TestSupport
import Testing
import TorchNN

@testable import LanguageModels
@testable import PEFT

/// The table of families, tasks and methods in `docs/models.md` is what the code does with a small model of each family.
/// `Scripts/family_table.sh` writes it.
@Suite struct FamilyTableTests {
    /// A method of each kind of site, and those that few families have.
    static let methods = [
        "lora", "ia3", "bitfit", "layernorm", "prompt", "prefix", "houlsby", "alora", "cpt", "llama-adapter",
    ]

    /// A column of tasks, which families do all or none of.
    static let tasks: [(name: String, tasks: [ModelTask])] = [
        ("`causal-lm`", [.causalLM]), ("`seq2seq`", [.sequenceToSequence]),
        ("`classification`, `multi-label`, `regression`", [.classification, .multiLabel, .regression]),
        ("`token-classification`", [.tokenClassification]), ("`embeddings`", [.embeddings]),
    ]

    /// The configuration of a small model of each family; the first folder in alphabetical order counts.
    static func configurations() throws -> [String: JSON] {
        var result: [String: JSON] = [:]
        for parent in ["", "decoders", "heads"] {
            let folder = parent.isEmpty ? Checkout.models : Checkout.model(parent)
            for name in try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() {
                let file = folder.appendingPathComponent("\(name)/config.json")
                guard FileManager.default.fileExists(atPath: file.path) else { continue }
                let configuration = try JSON.read(file)
                guard let type = configuration["model_type"]?.string, result[type] == nil else { continue }
                result[type] = configuration
            }
        }
        // XLM-RoBERTa is RoBERTa under another name.
        if var fields = result["roberta"]?.object {
            fields["model_type"] = "xlm-roberta"
            result["xlm-roberta"] = .object(fields)
        }
        // A text part without a fixture of the whole model.
        for family in ModelRegistry.families.map(\.name) where result[family] == nil {
            guard let text = result[family + "_text"] else { continue }
            result[family] = ["model_type": .string(family), "text_config": text, "vision_config": [:]]
        }
        return result
    }

    static func outline(_ configuration: JSON, _ task: ModelTask) -> (any LanguageModel)? {
        let head = ModelHead(task: task, labels: task.hasLabels ? ["a", "b", "c"] : [])
        return try? ModelRegistry.outline(configuration, file: "config.json", head: head)
    }

    /// A family's row: what each task and each method answers.
    static func row(_ family: String, _ configuration: JSON) throws -> String {
        var cells = ["`\(family)`"]
        for (name, tasks) in tasks {
            let possible = tasks.map { outline(configuration, $0) != nil }
            #expect(Set(possible).count == 1, "\(family) \(name)")
            cells.append(possible[0] ? "yes" : "–")
        }
        let order: [ModelTask] = [.causalLM, .sequenceToSequence, .classification]
        let model = try #require(order.lazy.compactMap { outline(configuration, $0) }.first)
        for name in methods {
            let method = try #require(PEFTMethods.builtIn.first { $0.name == name })
            let outline = ModelOutline(model)
            let choice = MethodChoice.forTests(method).resolved(for: outline)
            cells.append((try? choice.plan(for: outline)) == nil ? "–" : "yes")
        }
        return "| " + cells.joined(separator: " | ") + " |"
    }

    static let header: [String] = {
        let names = ["`model_type`"] + tasks.map(\.name) + methods.map { "`\($0)`" }
        return ["| " + names.joined(separator: " | ") + " |", "|" + String(repeating: "---|", count: names.count)]
    }()
    static let families = ModelRegistry.families.map(\.name).sorted()

    /// Every eighth row; all of them with `PEFT_ALL_LAWS` and if the table is written.
    @Test func theTableOfTheDocumentationIsThatOfTheCode() throws {
        let environment = ProcessInfo.processInfo.environment
        let configurations = try Self.configurations()
        func row(_ family: String) throws -> String {
            try Self.row(family, #require(configurations[family], "\(family) has no small model"))
        }
        if let path = environment["PEFT_WRITE_TABLE"] {
            let table = try Self.header + Self.families.map(row)
            return try Self.write(table, to: URL(fileURLWithPath: path))
        }
        let page = try String(contentsOf: Checkout.root.appendingPathComponent("docs/models.md"), encoding: .utf8)
        let lines = page.components(separatedBy: "\n")
        let start = try #require(lines.firstIndex(of: Self.header[0]), "run Scripts/family_table.sh")
        let rows = lines[start...].prefix { $0.hasPrefix("|") }.dropFirst(2)
        let names = rows.compactMap { $0.split(separator: "`").dropFirst().first.map(String.init) }
        #expect(names == Self.families, "docs/models.md lacks families: run Scripts/family_table.sh")
        let isComplete = environment["PEFT_ALL_LAWS"] != nil
        for (index, (name, line)) in zip(names, rows).enumerated() where isComplete || index.isMultiple(of: 8) {
            #expect(try line == row(name), "docs/models.md differs: run Scripts/family_table.sh")
        }
    }

    /// Replaces the table of a page, which begins with the same columns.
    private static func write(_ table: [String], to file: URL) throws {
        var lines = try String(contentsOf: file, encoding: .utf8).components(separatedBy: "\n")
        let start = try #require(lines.firstIndex { $0.hasPrefix("| `model_type` | `causal-lm` |") })
        let end = lines[start...].firstIndex { !$0.hasPrefix("|") } ?? lines.endIndex
        lines.replaceSubrange(start..<end, with: table)
        try AtomicFile.write(lines.joined(separator: "\n"), to: file)
    }
}
