import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchTestSupport

@testable import PEFT

/// Every cell of the table in `docs/tasks.md`: each method trains on each task of each family and comes back from its
/// file, or says why not.
@Suite struct TaskMatrixTests {
    struct Cell: Sendable, CustomTestStringConvertible {
        var family: String
        var task: ModelTask
        var isPossible: Bool
        var testDescription: String { "\(family) \(task.rawValue)" }
    }

    /// The table of families and tasks as the documentation has it.
    static let cells: [Cell] = {
        let text =
            (try? String(contentsOf: Checkout.root.appendingPathComponent("docs/tasks.md"), encoding: .utf8)) ?? ""
        let rows = text.split(separator: "\n").filter { $0.hasPrefix("|") }.map { line in
            line.split(separator: "|").map { $0.trimmingCharacters(in: CharacterSet(charactersIn: " `")) }
        }
        guard let start = rows.firstIndex(where: { $0.first == "family" }) else { return [] }
        let tasks = rows[start].dropFirst().compactMap(ModelTask.init(rawValue:))
        return rows[(start + 2)...].prefix { $0.count == tasks.count + 1 }.flatMap { row in
            zip(tasks, row.dropFirst()).map { Cell(family: row[0], task: $0, isPossible: $1 == "yes") }
        }
    }()

    /// What makes no sense, by method, with words of the reason.
    static func refusal(_ method: String, _ cell: Cell) -> String? {
        if method == "head", cell.task == .embeddings { return "has no untrained head" }
        if ["alora", "cpt"].contains(method) { return "needs a decoder-only model that generates text" }
        if method == "llama-adapter", cell.family != "llama" { return "supports llama and mistral" }
        return method == "bitfit" && cell.family == "llama" ? "has no biases" : nil
    }

    /// Each method meets each family and each task once (a Latin square), LoRA every cell; with PEFT_ALL_LAWS set, all pairs.
    private static func methods(of cell: Cell) -> [any PEFTMethod.Type] {
        let isComplete = ProcessInfo.processInfo.environment["PEFT_ALL_LAWS"] != nil
        let place = cells.firstIndex { $0.family == cell.family && $0.task == cell.task } ?? 0
        return PEFTMethods.builtIn.enumerated().filter { index, method in
            isComplete || method.name == "lora" || (place / 5 + place % 5 + index) % 5 == 0
        }.map(\.element)
    }

    @Test func theTableHasAllFamilies() {
        #expect(Set(Self.cells.map(\.family)) == ["bert", "roberta", "distilbert", "llama", "gpt2"])
        #expect(Set(Self.cells.map(\.task)) == Set(ModelTask.allCases.filter { !$0.generates }))
        #expect(Self.cells.count == 25)
    }

    @Test(arguments: cells) func everyMethodTrainsAndComesBack(cell: Cell) throws {
        guard cell.isPossible else {
            let error = try failure { _ = try Models.headFolder(cell.family, cell.task).outline() }
            #expect(error.problem.contains("can't do the task"))
            return
        }
        for method in Self.methods(of: cell) {
            let base = "\(cell.family):\(cell.task.rawValue)"
            let choice = MethodChoice.forTests(method, on: base)
            let model = try Models.load(base)
            if let reason = Self.refusal(method.name, cell) {
                let error = try failure { _ = try Adapter(choice, on: model) }
                #expect(error.problem.contains(reason), "\(method.name)")
                continue
            }
            let before = model.snapshot()
            let adapter = try Adapter(choice, on: model, seed: 3)
            // A new head is trained by every method.
            let isHeadTrained = model.newModules.allSatisfy { name in
                adapter.trained.contains { $0.path.hasPrefix(name + ".") }
            }
            #expect(isHeadTrained, "\(method.name)")
            let losses = try adapter.train(steps: 2, rate: 1e-3)
            #expect(losses.allSatisfy { $0.isFinite }, "\(method.name)")
            let output = try model.scores()
            try withTemporaryFolder { folder in
                let saved = folder.appendingPathComponent("saved")
                guard method.peftType != nil else {
                    try model.save(to: saved)
                    let scores = try ModelFolder(saved).with(model.head).load().scores()
                    #expect(relativeDifference(scores, output) < 1e-6, "\(method.name)")
                    return
                }
                try adapter.save(to: saved, base: cell.family)
                let stored = try AdapterFolder(saved)
                #expect(stored.configuration["task_type"] == .string(cell.task.taskType))
                // The file tells what it is for, without the record that peft train writes beside it.
                let bare = try ModelFolder(Models.folder.appendingPathComponent("heads/\(cell.family)"))
                let head = try #require(stored.head(on: bare))
                #expect(head.task == (cell.task == .multiLabel ? .classification : cell.task))
                #expect(head.labels.count == model.head.labels.count)
                let loaded = try stored.attach(to: Models.load(base))
                let scores = try loaded.model.scores()
                #expect(relativeDifference(scores, output) < 1e-4, "\(method.name)")
            }
            guard adapter.isRemovable else { continue }
            try adapter.deactivate()
            #expect(model.changed(since: before).isEmpty, "\(method.name)")
        }
    }
}
