import Foundation
import Support
import Training

/// What `peft compare` found: one entry per method over the same data, seeds and budget.
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
    /// Steps, batch size, schedule … as they were used, for the reader who wants to repeat the run.
    public var settings: [String: JSON]
    /// The metric that ranks the methods, a key of ``MethodRun/quality``.
    public var primaryMetric: String
    /// In the order asked for; `base`, if asked for, is the untrained model.
    public var runs: [MethodRun]
    /// Methods that were asked for and could not be compared, with the reason.
    public var skipped: [SkippedMethod]?
    /// Outputs that need no model, on the same test rows.
    public var baselines: [BaselineResult]?
    /// What the model does with a row; it writes if this is absent.
    public var task: Task?

    public enum Task: String, Codable, Sendable {
        case generation, classification
        case multiLabel = "multi-label"
        case regression
        case tokenClassification = "token-classification"
        case embeddings
    }

    /// What one unit of ``MethodRun/Inference`` is: a generated token, or a row that is read.
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

/// One method's row: quality with its spread, and what it cost.
public struct MethodRun: Codable, Sendable {
    /// `base`, `full`, `lora` …
    public var method: String
    /// What the reader sees, such as `LoRA r 32 (all linears)`.
    public var label: String
    /// The method's own fields as they were used (rank, alpha, targets …).
    public var configuration: [String: JSON]
    /// Metric name (`rouge1`, `rouge2`, `rougeL`, `rougeLsum`, `bleu`, `exactMatch`) to its value over the
    /// seeds; each value lies in 0 … 1.
    public var quality: [String: Statistic]
    /// Loss per target token on the test rows, in nats.
    public var loss: Statistic?
    /// Parameters that were trained, of ``total`` (base and added ones); `share` is their ratio.
    public var trainable: Int
    public var total: Int
    public var share: Double
    public var learningRate: Double?
    /// Rates tried on the validation rows, with the loss each reached.
    public var learningRateSearch: [LearningRateTrial]
    /// Real tokens (no padding) trained per second, median over seeds.
    public var tokensPerSecond: Double?
    public var trainingSeconds: Double?
    public var steps: Int
    /// Largest resident memory of the process while training (for `base`: while evaluating), in bytes.
    public var peakBytes: Int?
    /// Bytes of the file a user would share; for full fine-tuning, the whole model.
    public var adapterBytes: Int?
    public var inference: Inference?
    /// ``tokensPerSecond`` and ``peakBytes`` of each seed.
    public var speed: Statistic?
    public var memory: Statistic?
    /// The loss on general text, where forgetting was measured.
    public var retention: Retention?
    /// One curve per seed.
    public var curves: [Curve]
    /// A few test rows with this method's output, from the first seed.
    public var samples: [Sample]
    /// To the best run by each metric and, by the ranking one, to all runs that verdicts compare it with.
    public var differences: [Difference]?
    /// How the base's projections are kept, where that isn't as numbers of the model's files: `nf4`, `int4-g32-gptq` ….
    public var weights: String?
    /// Bytes of the weight files that a user of this row needs: the base as it is kept and the adapter, or the whole model.
    public var modelBytes: Int?
    /// Place of the run whose model this is, merged and stored anew; such a row trained nothing itself.
    public var source: Int?
    /// How it is stored (`nf4`, `int4-g32-gptq` …), or `merged` where the weights took the adapter as they are stored.
    public var storedAs: String?

    public struct LearningRateTrial: Codable, Sendable {
        public var learningRate: Double
        public var validationLoss: Double

        public init(learningRate: Double, validationLoss: Double) {
            (self.learningRate, self.validationLoss) = (learningRate, validationLoss)
        }
    }

    /// Milliseconds per generated token, greedy decoding, batch 1: the base model's time, times the median of paired ratios.
    public struct Inference: Codable, Sendable {
        /// As trained, the adapter beside the weights.
        public var unmerged: Double
        /// After merging; equal to `unmerged` where nothing is beside the weights.
        public var merged: Double
        /// The base model's, timed in turns with the others; all runs of a report are brought to one.
        public var base: Double?
        /// Largest difference of a logit between the two.
        public var largestDifference: Double?
        /// `false` where no weight can hold what the method does, so that it always costs what it costs unmerged.
        public var isMergeable: Bool?

        public init(unmerged: Double, merged: Double, largestDifference: Double?) {
            (self.unmerged, self.merged, self.largestDifference) = (unmerged, merged, largestDifference)
        }
    }

    public struct Retention: Codable, Sendable {
        /// Name of the text's file.
        public var text: String
        /// Loss per token of the base model, in nats.
        public var before: Double
        /// After training, over seeds.
        public var after: Statistic

        public init(text: String, before: Double, after: Statistic) {
            (self.text, self.before, self.after) = (text, before, after)
        }
    }

    public struct Curve: Codable, Sendable {
        public var seed: Int
        /// Training loss per target token.
        public var training: [Point]
        public var validation: [Point]

        public init(seed: Int, training: [Point], validation: [Point]) {
            (self.seed, self.training, self.validation) = (seed, training, validation)
        }
    }

    public struct Point: Codable, Sendable {
        public var step: Int
        public var loss: Double

        public init(step: Int, loss: Double) { (self.step, self.loss) = (step, loss) }
    }

    public struct Sample: Codable, Sendable {
        public var prompt: String
        public var target: String
        public var output: String

        public init(prompt: String, target: String, output: String) {
            (self.prompt, self.target, self.output) = (prompt, target, output)
        }
    }

    public init(method: String, label: String) {
        (self.method, self.label) = (method, label)
        (configuration, quality, learningRateSearch) = ([:], [:], [])
        (trainable, total, share, steps) = (0, 0, 0, 0)
        (curves, samples) = ([], [])
    }
}

/// A value over several seeds.
public struct Statistic: Codable, Sendable {
    public var mean: Double
    /// Standard deviation over seeds (n − 1); `nil` with one seed.
    public var sd: Double?
    /// 95 % bootstrap interval over the test rows of the first seed.
    public var low: Double?
    public var high: Double?
    public var values: [Double]
    /// The mean over seeds for each drawing of test rows, the same rows for every run; not part of the coded form.
    var resampled: [Double] = []

    private enum CodingKeys: String, CodingKey { case mean, sd, low, high, values }

    public init(_ values: [Double], low: Double? = nil, high: Double? = nil) {
        let mean = values.isEmpty ? .nan : values.reduce(0, +) / Double(values.count)
        self.values = values
        self.mean = mean
        self.low = low
        self.high = high
        if values.count > 1 {
            let squares = values.map { ($0 - mean) * ($0 - mean) }.reduce(0, +)
            sd = (squares / Double(values.count - 1)).squareRoot()
        }
    }

    /// A metric over several seeds, each measured on the same rows.
    init(_ seeds: [MetricValue]) {
        func finite(_ value: Double?) -> Double? { value.flatMap { $0.isFinite ? $0 : nil } }
        self.init(seeds.map(\.value), low: finite(seeds.first?.low), high: finite(seeds.first?.high))
        guard let count = seeds.first?.resampled.count, seeds.allSatisfy({ $0.resampled.count == count }) else {
            return
        }
        resampled = (0..<count).map { draw in
            seeds.reduce(0) { $0 + $1.resampled[draw] } / Double(seeds.count)
        }
    }
}
