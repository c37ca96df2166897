import Foundation
import LanguageModels
import Support

/// What rows are for, where the user doesn't say everything.
public struct TaskChoice: Sendable {
    public var task: ModelTask?
    public var pooling: Pooling.Mode?

    public init(task: ModelTask? = nil, pooling: Pooling.Mode? = nil) { (self.task, self.pooling) = (task, pooling) }

    /// The head for a model and its training rows.
    ///
    /// The task is the one asked for, else what the configuration's `architectures` say, else, for a model that only
    /// reads, what the rows look like: without targets embeddings; words and labels, one a line, token classification;
    /// numbers with fractions regression; else classification. Labels are those of the configuration where they have
    /// names and cover the rows' (which may number them), else the rows' own, sorted, by value if all are integers.
    /// - Returns: `nil` for a model that writes.
    /// - Throws: ``PEFTError`` for a task that the model can't do, or rows that don't fit it.
    public func head(for folder: ModelFolder, rows: [Example]) throws -> ModelHead? {
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
        // Fails where the family can't do it.
        _ = try folder.with(head).outline()
        guard task.writes || task == .embeddings || rows.isEmpty || rows.contains(where: { !$0.target.isBlank })
        else {
            throw PEFTError(
                "the task \(task.rawValue) needs targets, but --target is missing",
                remedy: "name their field, such as --target '{label}'")
        }
        return task.writes ? nil : head
    }

    /// Whether the model is to write, whatever its rows are.
    public func writes(_ folder: ModelFolder) -> Bool {
        let task = task ?? ModelHead(configuration: folder.configuration)?.task
        return task?.writes ?? !ModelRegistry.isEncoder(folder.configuration["model_type"]?.string ?? "")
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
        // Of transformers' generic names no number has another meaning.
        let areNamed = stored.enumerated().contains { $1 != "LABEL_\($0)" }
        let numbers = LabelNumbers(stored)
        let covers = areNamed ? own.allSatisfy { numbers[$0] != nil } : own.isSubset(of: stored)
        return covers && !stored.isEmpty ? stored : LabelNumbers.sorted(own)
    }
}
