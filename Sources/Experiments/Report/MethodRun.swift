import PEFTSupport
import Training

/// One method's results: quality with intervals, and cost.
public struct MethodRun: Codable, Sendable {
    /// `base`, `full`, `lora` …
    public var method: String
    /// The display name, such as `LoRA r 32 (all linears)`.
    public var label: String
    /// The method's configuration as used (rank, alpha, targets …).
    package var configuration: [String: JSON]
    /// The method's family, by which long reports are grouped.
    package var family: String?
    /// Values over the seeds by metric key (`rouge1`, `bleu`, `accuracy` …), each in the range of its ``MetricDescription``.
    public var quality: [String: Statistic]
    /// Loss per target token on the test examples, in nats.
    public var loss: Statistic?
    /// Trainable parameters, of ``total`` (base model and adapter); `share` is their ratio in 0 … 1.
    public var trainable: Int
    /// Number of parameters of the model with the adapter.
    public var total: Int
    package var share: Double
    /// The rate, given or found by the search.
    public var learningRate: Double?
    /// Learning rates tried, with their validation losses.
    package var learningRateSearch: [LearningRateTrial]
    /// Training throughput in tokens per second, without padding, median over seeds.
    public var tokensPerSecond: Double?
    /// Time of the training steps, in seconds.
    public var trainingSeconds: Double?
    package var steps: Int
    /// Peak resident memory of the process while training (for `base`: while evaluating), in bytes.
    public var peakBytes: Int?
    /// Bytes of the saved adapter; for full fine-tuning, of the whole model.
    public var adapterBytes: Int?
    package var inference: Inference?
    /// ``tokensPerSecond`` and ``peakBytes`` of each seed.
    package var speed: Statistic?
    package var memory: Statistic?
    /// The loss on general text, if forgetting was measured.
    package var retention: Retention?
    /// One curve per seed.
    package var curves: [Curve]
    /// A few test examples with this method's output, from the first seed.
    package var samples: [Sample]
    /// Differences from the best run by each metric and, by the ranking metric, from all runs that verdicts compare it with.
    public var differences: [Difference]?
    /// Weight format of the base model's projections if quantized: `nf4`, `int4-g32-gptq` …
    package var weights: String?
    /// Bytes of all weight files needed to run the model: the base as stored and the adapter, or the whole model.
    package var modelBytes: Int?
    /// Index of the run whose model this is, merged and quantized; such an entry trained nothing itself.
    package var source: Int?
    /// Weight format it was quantized to (`nf4`, `int4-g32-gptq` …), or ``merged`` if the adapter was merged into quantized
    /// weights without requantization.
    package var storedAs: String?

    /// ``storedAs`` of quantized weights that an adapter was merged into without requantization.
    static let merged = "merged"

    package struct LearningRateTrial: Codable, Sendable {
        package var learningRate: Double
        package var validationLoss: Double

        package init(learningRate: Double, validationLoss: Double) {
            (self.learningRate, self.validationLoss) = (learningRate, validationLoss)
        }
    }

    /// Milliseconds per generated token, greedy decoding, batch 1: the base model's time, times the median of paired ratios.
    package struct Inference: Codable, Sendable {
        /// With the adapter unmerged.
        package var unmerged: Double
        /// With the adapter merged; equal to `unmerged` for methods without separate weights.
        package var merged: Double
        /// The base model's, timed alternately with the others; normalized to one value for all runs of a report.
        package var base: Double?
        /// Largest absolute difference of a logit between merged and unmerged.
        package var largestDifference: Double?
        /// `false` if the method can't be merged into the weights, so that inference always has the unmerged cost.
        package var isMergeable: Bool?

        package init(unmerged: Double, merged: Double, largestDifference: Double?) {
            (self.unmerged, self.merged, self.largestDifference) = (unmerged, merged, largestDifference)
        }
    }

    package struct Retention: Codable, Sendable {
        /// Name of the text's file.
        package var text: String
        /// Loss per token of the base model, in nats.
        package var before: Double
        /// After training, over seeds.
        package var after: Statistic

        package init(text: String, before: Double, after: Statistic) {
            (self.text, self.before, self.after) = (text, before, after)
        }
    }

    package struct Curve: Codable, Sendable {
        package var seed: Int
        /// Training loss per target token.
        package var training: [Point]
        package var validation: [Point]

        package init(seed: Int, training: [Point], validation: [Point]) {
            (self.seed, self.training, self.validation) = (seed, training, validation)
        }
    }

    package struct Point: Codable, Sendable {
        package var step: Int
        package var loss: Double

        package init(step: Int, loss: Double) { (self.step, self.loss) = (step, loss) }
    }

    package struct Sample: Codable, Sendable {
        package var prompt: String
        package var target: String
        package var output: String

        package init(prompt: String, target: String, output: String) {
            (self.prompt, self.target, self.output) = (prompt, target, output)
        }
    }

    package init(method: String, label: String) {
        (self.method, self.label) = (method, label)
        (configuration, quality, learningRateSearch) = ([:], [:], [])
        (trainable, total, share, steps) = (0, 0, 0, 0)
        (curves, samples) = ([], [])
    }
}

extension MethodRun {
    /// The metric's statistic, if it has a finite mean.
    func statistic(_ metric: Metric) -> Statistic? {
        guard let value = metric == .loss ? loss : quality[metric.key], value.mean.isFinite else { return nil }
        return value
    }

    var isBase: Bool { method == "base" && !isRequantized }
    /// The frozen base model with only its new head trained: the reference where the base has no head.
    var isHead: Bool { method == "head" && !isRequantized }
    var isFull: Bool { method == "full" && !isRequantized }
    /// Another run's model, quantized after training: it trained nothing itself.
    var isRequantized: Bool { source != nil }
    var isTrained: Bool { !isBase && !isRequantized }
    /// A trained model that was quantized with its adapter merged.
    var isQuantized: Bool { isRequantized && method != "base" }
    /// A trained run that is neither full fine-tuning nor the training of the head only.
    var isAdapter: Bool { isTrained && !isHead && !isFull }

    var trainableShare: Double? {
        if share.isFinite, share > 0 || trainable == 0 { return share }
        return total > 0 ? Double(trainable) / Double(total) : nil
    }

    /// Number of seeds of this run.
    var seedCount: Int { max(curves.count, quality.values.map(\.values.count).max() ?? 0, loss?.values.count ?? 0) }
}
