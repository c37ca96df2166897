import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch
import Training

/// Trains a method with several values of one configuration field, everything else equal.
package struct Sweep {
    /// The varied field and its values.
    package struct Question: Sendable {
        /// The method with the values of all other fields.
        package var choice: MethodChoice
        /// Name of the field, as on the command line.
        package var field: String
        /// Its values, as on the command line.
        package var values: [String]
        /// Parameter budget that each value is adjusted to by changing ``budgetField``; `nil` for none.
        package var budget: Int?
        /// The field that is changed to meet the budget.
        package var budgetField: String
        /// One learning rate for all values; `nil` to search it at the middle value or, with ``tunesEach``, at each value.
        package var learningRate: Double?
        package var tunesEach: Bool

        package init(
            choice: MethodChoice, field: String, values: [String], budget: Int? = nil, budgetField: String = "rank",
            learningRate: Double? = nil, tunesEach: Bool = false
        ) {
            (self.choice, self.field, self.values) = (choice, field, values)
            (self.budget, self.budgetField) = (budget, budgetField)
            (self.learningRate, self.tunesEach) = (learningRate, tunesEach)
        }

        /// - Throws: ``PEFTError`` for fewer than two values, a duplicate value or an unknown field.
        func validate() throws {
            guard values.count > 1 else {
                throw PEFTError(
                    "a sweep needs at least 2 values of --\(field) (got \(values.count))")
            }
            var seen: Set<String> = []
            if let duplicate = values.first(where: { !seen.insert($0).inserted }) {
                throw PEFTError("--\(field) lists the value '\(duplicate)' twice", remedy: "list each value once")
            }
            let fields = MethodChoice.options(of: choice.method).map(\.name)
            for field in [field] + (budget == nil ? [] : [budgetField])
            where !fields.contains(field) {
                let hint = nearestName(to: field, in: fields).map { "did you mean '\($0)'?" }
                throw PEFTError(
                    "\(choice.method.name) has no field '\(field)'",
                    remedy: hint ?? "it has \(fields.sorted().joined(separator: ", "))")
            }
        }
    }

    let question: Question
    private let choices: [MethodChoice]
    let comparison: Comparison

    /// - Throws: ``PEFTError`` for an unknown field, an impossible value or a value that doesn't fit the model, before
    ///   anything runs.
    package init(
        model folder: ModelFolder, name: String, data: ComparisonData, plan: ComparisonPlan, question: Question
    ) throws {
        try question.validate()
        let outline = ModelOutline(try folder.outline())
        self.question = question
        choices = try question.values.map { value in
            var choice = question.choice
            try choice.set(question.field, to: value.split(separator: "+").joined(separator: ","))
            if let budget = question.budget {
                choice = try Self.fitted(choice, field: question.budgetField, to: budget, outline)
            }
            return choice.resolved(for: outline)
        }
        var plan = plan
        // Each value has its own initial weights: adapters with equal initialization would share subspaces that
        // were not learned.
        plan.methods = choices.enumerated().map {
            .init(
                choice: $1, learningRate: question.learningRate, isOptional: false,
                seedOffset: 1_000_003 * UInt64($0 + 1))
        }
        comparison = try Comparison(model: folder, name: name, data: data, plan: plan)
    }

    /// The choice with the value of `field` whose number of trained parameters is closest to `budget`.
    static func fitted(_ choice: MethodChoice, field: String, to budget: Int, _ outline: ModelOutline) throws
        -> MethodChoice
    {
        func count(_ value: Int) throws -> (choice: MethodChoice, count: Int) {
            var candidate = choice
            try candidate.set(field, to: String(value))
            return (candidate, PlanSummary(try candidate.plan(for: outline), outline: outline).trainable)
        }
        var (low, high) = (1, 1)
        while try count(high).count < budget, high < 65536 { high *= 2 }
        // Counts grow with the value, so the closest is the first that reaches the budget or the one before.
        while low < high {
            let middle = (low + high) / 2
            if try count(middle).count < budget { low = middle + 1 } else { high = middle }
        }
        let reached = try count(low)
        guard low > 1 else { return reached.choice }
        let before = try count(low - 1)
        return budget - before.count < reached.count - budget ? before.choice : reached.choice
    }

    /// Labels of the values' runs.
    package var labels: [String] { comparison.methodLabels }
    /// Whether a learning rate is searched once, before the runs.
    package var tunesOnce: Bool { question.learningRate == nil && !question.tunesEach }

    /// The comparison of the values, with their common learning rate.
    package func tuned(_ state: ComparisonState?, _ onEvent: (ComparisonEvent) -> Void) throws -> Comparison {
        var comparison = comparison
        if tunesOnce {
            try comparison.tuneOnce(at: choices.count / 2, state, onEvent)
        }
        return comparison
    }

    /// Runs one value and stores its results, for a process that runs beside others.
    package func runValue(
        _ index: Int, state: ComparisonState, onAdapter: (TrainedAdapter) throws -> Void = { _ in },
        onEvent: (ComparisonEvent) -> Void = { _ in }
    ) throws {
        try tuned(state, onEvent).runMethod(
            index, state: state,
            onAdapter: { trained in
                try onAdapter(trained)
                if let (name, basis) = try subspace(of: trained) { try basis.write(to: state.file(name)) }
            }, onEvent: onEvent)
    }

    private static func file(_ index: Int, _ seed: Int) -> String { "subspace-\(index + 1)-\(seed + 1).safetensors" }

    /// The subspace of an adapter of the first two seeds, and its file in the state.
    private func subspace(of trained: TrainedAdapter) throws -> (name: String, basis: SubspaceBasis)? {
        guard trained.seed < 2 else { return nil }
        let value = question.values[trained.method]
        return try SubspaceBasis.of(trained.adapter, value: value, seed: trained.seed).first.map {
            (Self.file(trained.method, trained.seed), $0)
        }
    }

    /// - Parameters:
    ///   - state: where finished runs are kept; those that are there already are not repeated.
    ///   - onAdapter: called with each trained adapter.
    package func run(
        state: ComparisonState? = nil, onAdapter: (TrainedAdapter) throws -> Void = { _ in },
        onEvent: (ComparisonEvent) -> Void = { _ in }
    ) throws -> SweepReport {
        let comparison = try tuned(state, onEvent)
        var known: [String: SubspaceBasis] = [:]
        let report = try comparison.run(
            state: state,
            onAdapter: { trained in
                try onAdapter(trained)
                guard let (name, basis) = try subspace(of: trained) else { return }
                known[name] = basis
                if let state { try basis.write(to: state.file(name)) }
            }, onEvent: onEvent)
        var bases: [SubspaceBasis] = []
        for (index, value) in question.values.enumerated() {
            for seed in 0..<2 {
                let name = Self.file(index, seed)
                let stored = try state.flatMap { try SubspaceBasis.read($0.file(name), value: value, seed: seed) }
                if let basis = known[name] ?? stored { bases.append(basis) }
            }
        }
        return SweepReport(
            report, field: question.field, method: question.choice.method.name, values: question.values,
            budget: question.budget, similarity: try SubspaceSimilarity.pairs(bases, values: question.values))
    }
}
