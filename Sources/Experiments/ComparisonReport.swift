import Foundation
import Support
import Training

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

/// One method's results: quality with intervals, and cost.
public struct MethodRun: Codable, Sendable {
    /// `base`, `full`, `lora` …
    public var method: String
    /// The display name, such as `LoRA r 32 (all linears)`.
    public var label: String
    /// The method's configuration as used (rank, alpha, targets …).
    public var configuration: [String: JSON]
    /// Values over the seeds by metric key (`rouge1`, `bleu`, `accuracy` …). Most are in 0 … 1; correlations and `mcc` are in
    /// −1 … 1, `cider` in 0 … 10, `perplexity` at least 1, and `nist` (bits), `mse` and `mae` at least 0 and unbounded.
    public var quality: [String: Statistic]
    /// Loss per target token on the test examples, in nats.
    public var loss: Statistic?
    /// Trainable parameters, of ``total`` (base model and adapter); `share` is their ratio in 0 … 1.
    public var trainable: Int
    public var total: Int
    public var share: Double
    public var learningRate: Double?
    /// Learning rates tried, with their validation losses.
    public var learningRateSearch: [LearningRateTrial]
    /// Training throughput in tokens per second, without padding, median over seeds.
    public var tokensPerSecond: Double?
    public var trainingSeconds: Double?
    public var steps: Int
    /// Peak resident memory of the process while training (for `base`: while evaluating), in bytes.
    public var peakBytes: Int?
    /// Bytes of the saved adapter; for full fine-tuning, of the whole model.
    public var adapterBytes: Int?
    public var inference: Inference?
    /// ``tokensPerSecond`` and ``peakBytes`` of each seed.
    public var speed: Statistic?
    public var memory: Statistic?
    /// The loss on general text, if forgetting was measured.
    public var retention: Retention?
    /// One curve per seed.
    public var curves: [Curve]
    /// A few test examples with this method's output, from the first seed.
    public var samples: [Sample]
    /// Differences from the best run by each metric and, by the ranking metric, from all runs that verdicts compare it with.
    public var differences: [Difference]?
    /// Weight format of the base model's projections if quantized: `nf4`, `int4-g32-gptq` …
    public var weights: String?
    /// Bytes of all weight files needed to run the model: the base as stored and the adapter, or the whole model.
    public var modelBytes: Int?
    /// Index of the run whose model this is, merged and quantized; such an entry trained nothing itself.
    public var source: Int?
    /// Weight format it was quantized to (`nf4`, `int4-g32-gptq` …), or `merged` if the adapter was merged into quantized
    /// weights without requantization.
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
        /// With the adapter unmerged.
        public var unmerged: Double
        /// With the adapter merged; equal to `unmerged` for methods without separate weights.
        public var merged: Double
        /// The base model's, timed alternately with the others; normalized to one value for all runs of a report.
        public var base: Double?
        /// Largest absolute difference of a logit between merged and unmerged.
        public var largestDifference: Double?
        /// `false` if the method can't be merged into the weights, so that inference always has the unmerged cost.
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
    /// 95 % bootstrap interval over the test examples of the first seed.
    public var low: Double?
    public var high: Double?
    public var values: [Double]
    /// The mean over seeds on each bootstrap resample, which is the same for every run; not part of the coded form.
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

    /// A metric over several seeds, each evaluated on the same examples.
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
