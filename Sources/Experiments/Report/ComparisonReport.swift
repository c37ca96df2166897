import PEFTSupport

/// The result of `peft compare`: one entry per method, with the same data, seeds and budget.
///
/// The JSON form is stable: later versions add keys and never rename or drop one.
public struct ComparisonReport: Codable, Sendable {
    /// Program version that wrote the report.
    public var version: String
    /// ISO 8601, UTC.
    public var date: String
    public var model: Model
    public var data: DataSet
    public var machine: Machine
    /// Steps, batch size, schedule … as used, for reproducing the run.
    public var settings: [String: JSON]
    /// The metric that ranks the methods, a key of ``MethodRun/quality``.
    public var primaryMetric: String
    /// In the order of `--methods`; `base` is the untrained model.
    public var runs: [MethodRun]
    /// Methods that were skipped, with the reason.
    public var skipped: [SkippedMethod]?
    /// Model-free baselines on the same test examples.
    public var baselines: [BaselineResult]?
    /// The model's task; text generation if absent.
    public var task: Task?

    public enum Task: String, Codable, Sendable {
        case generation, classification
        case multiLabel = "multi-label"
        case regression
        case tokenClassification = "token-classification"
        case embeddings
    }

    /// The unit of ``MethodRun/Inference``: a generated token, or an example for models with a head.
    var inferenceUnit: String { task ?? .generation == .generation ? "token" : "row" }

    public struct Model: Codable, Sendable {
        public var name: String
        public var family: String
        public var parameters: Int
        public var bytes: Int

        public init(name: String, family: String, parameters: Int, bytes: Int) {
            (self.name, self.family, self.parameters, self.bytes) = (name, family, parameters, bytes)
        }
    }

    public struct DataSet: Codable, Sendable {
        public var name: String
        public var trainingRows: Int
        public var validationRows: Int
        public var testRows: Int
        public var prompt: String
        public var target: String

        public init(
            name: String, trainingRows: Int, validationRows: Int, testRows: Int, prompt: String, target: String
        ) {
            (self.name, self.trainingRows, self.validationRows) = (name, trainingRows, validationRows)
            (self.testRows, self.prompt, self.target) = (testRows, prompt, target)
        }
    }

    public struct Machine: Codable, Sendable {
        public var processor: String
        public var threads: Int
        public var memoryBytes: Int
        public var system: String

        public init(processor: String, threads: Int, memoryBytes: Int, system: String) {
            (self.processor, self.threads) = (processor, threads)
            (self.memoryBytes, self.system) = (memoryBytes, system)
        }
    }

    public init(
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
    public var label: String
    public var reason: String

    public init(label: String, reason: String) { (self.label, self.reason) = (label, reason) }
}
