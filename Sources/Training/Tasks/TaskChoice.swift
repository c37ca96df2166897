import Foundation
import LanguageModels
import PEFTSupport

/// The task as far as the user chose it; the rest is inferred from the model and the data.
public struct TaskChoice: Sendable {
    /// The task; `nil` for the model's.
    public var task: ModelTask?
    /// How an embedding is pooled; `nil` for the model's way.
    public var pooling: Pooling.Mode?

    /// - Parameters:
    ///   - task: the task; `nil` for the model's.
    ///   - pooling: how an embedding is pooled.
    public init(task: ModelTask? = nil, pooling: Pooling.Mode? = nil) { (self.task, self.pooling) = (task, pooling) }

    /// The head for a model and its training examples.
    ///
    /// The task is the chosen one, else that of the configuration's `architectures`, else, for an encoder,
    /// inferred from the examples: embeddings without targets; token classification for words and labels, one per line;
    /// regression for decimal numbers; else classification. Labels are those of the configuration if they have
    /// names and cover the targets (which may be class indices), else the targets' own, sorted, by value if all are integers.
    /// - Returns: `nil` for a model that generates text.
    /// - Throws: ``PEFTError`` for a task that the model doesn't support, or examples that don't fit it.
    package func head(for folder: ModelFolder, rows: [Example]) throws -> ModelHead? {
        let family = folder.configuration["model_type"]?.string ?? ""
        let stored = ModelHead(configuration: folder.configuration)
        let isEncoder = ModelRegistry.isEncoder(family)
        guard let task = task ?? stored?.task ?? (isEncoder ? Self.guess(rows) : nil) else { return nil }
        var head = ModelHead(task: task, pooling: folder.pooling ?? Pooling())
        if let pooling {
            guard task == .embeddings else {
                throw PEFTError(
                    "--pooling applies to embeddings only, but the task is \(task.rawValue)", remedy: "omit it")
            }
            head.pooling.mode = pooling
        }
        if task.hasLabels { head.labels = Self.labels(task, stored: stored?.labels ?? [], rows) }
        // Fails if the family doesn't support the task.
        _ = try folder.with(head).outline()
        guard task.generates || task == .embeddings || rows.isEmpty || rows.contains(where: { !$0.target.isBlank })
        else {
            throw PEFTError(
                "the task \(task.rawValue) needs targets, but --target is missing",
                remedy: "name their field, such as --target '{label}'")
        }
        return task.generates ? nil : head
    }

    /// Whether the model generates text, for any examples.
    package func generates(_ folder: ModelFolder) -> Bool {
        let task = task ?? ModelHead(configuration: folder.configuration)?.task
        return task?.generates ?? !ModelRegistry.isEncoder(folder.configuration["model_type"]?.string ?? "")
    }

    private static func guess(_ rows: [Example]) -> ModelTask {
        if rows.allSatisfy(\.target.isEmpty) { return .embeddings }
        let lines = rows.map {
            (TokenClassificationTask.lines($0.prompt).count, TokenClassificationTask.lines($0.target).count)
        }
        if lines.allSatisfy({ $0.0 == $0.1 }), lines.contains(where: { $0.0 > 1 }) { return .tokenClassification }
        let numbers = rows.map { Double($0.target.trimmingCharacters(in: .whitespaces)) }
        let hasFractions = rows.contains { $0.target.contains(".") }
        return hasFractions && numbers.allSatisfy { $0 != nil } ? .regression : .classification
    }

    private static func labels(_ task: ModelTask, stored: [String], _ rows: [Example]) -> [String] {
        let own = Set(
            rows.flatMap { row in
                switch task {
                case .tokenClassification: TokenClassificationTask.lines(row.target)
                case .multiLabel: MultiLabelTask.labels(row.target)
                default: [row.target]
                }
            }
        )
        .filter { !$0.isEmpty }
        // transformers' generic names are no evidence for what class indices mean.
        let areNamed = stored.enumerated().contains { $1 != "LABEL_\($0)" }
        let numbers = LabelNumbers(stored)
        let covers = areNamed ? own.allSatisfy { numbers[$0] != nil } : own.isSubset(of: stored)
        return covers && !stored.isEmpty ? stored : LabelNumbers.sorted(own)
    }
}
