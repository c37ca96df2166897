import PEFTSupport

/// The result of `peft compare`: one entry per method, with the same data, seeds and budget.
///
/// The JSON form is stable: later versions add keys and never rename or drop one.
public struct ComparisonReport: Codable, Sendable {
    /// Program version that wrote the report.
    package var version: String
    /// ISO 8601, UTC.
    package var date: String
    package var model: Model
    package var data: DataSet
    package var machine: Machine
    /// Steps, batch size, schedule … as used, for reproducing the run.
    package var settings: [String: JSON]
    /// The metric that ranks the methods, a key of ``MethodRun/quality``.
    public var primaryMetric: String
    /// In the order of `--methods`; `base` is the untrained model.
    public var runs: [MethodRun]
    /// Methods that were skipped, with the reason.
    public var skipped: [SkippedMethod]?
    /// Model-free baselines on the same test examples.
    public var baselines: [BaselineResult]?
    /// The model's task; text generation if absent.
    package var task: Task?

    package enum Task: String, Codable, Sendable {
        case generation, classification
        case multiLabel = "multi-label"
        case regression
        case tokenClassification = "token-classification"
        case embeddings
    }

    /// The unit of ``MethodRun/Inference``: a generated token, or an example for models with a head.
    var inferenceUnit: String { task ?? .generation == .generation ? "token" : "row" }

    package struct Model: Codable, Sendable {
        package var name: String
        package var family: String
        package var parameters: Int
        package var bytes: Int

        package init(name: String, family: String, parameters: Int, bytes: Int) {
            (self.name, self.family, self.parameters, self.bytes) = (name, family, parameters, bytes)
        }
    }

    package struct DataSet: Codable, Sendable {
        package var name: String
        package var trainingRows: Int
        package var validationRows: Int
        package var testRows: Int
        package var prompt: String
        package var target: String

        package init(
            name: String, trainingRows: Int, validationRows: Int, testRows: Int, prompt: String, target: String
        ) {
            (self.name, self.trainingRows, self.validationRows) = (name, trainingRows, validationRows)
            (self.testRows, self.prompt, self.target) = (testRows, prompt, target)
        }
    }

    package struct Machine: Codable, Sendable {
        package var processor: String
        package var threads: Int
        package var memoryBytes: Int
        package var system: String

        package init(processor: String, threads: Int, memoryBytes: Int, system: String) {
            (self.processor, self.threads) = (processor, threads)
            (self.memoryBytes, self.system) = (memoryBytes, system)
        }
    }

    package init(
        version: String, date: String, model: Model, data: DataSet, machine: Machine,
        settings: [String: JSON], primaryMetric: String, runs: [MethodRun]
    ) {
        (self.version, self.date, self.model, self.data) = (version, date, model, data)
        (self.machine, self.settings) = (machine, settings)
        (self.primaryMetric, self.runs) = (primaryMetric, runs)
    }
}

/// A method that doesn't fit the model, or failed.
public struct SkippedMethod: Codable, Sendable, Equatable {
    /// The method's name in reports.
    public var label: String
    /// Why it doesn't fit the model.
    public var reason: String

    package init(label: String, reason: String) { (self.label, self.reason) = (label, reason) }
}
