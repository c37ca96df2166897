import Foundation
import Training

/// A column of quality: a key of ``MethodRun/quality``, or the loss.
struct Metric: Hashable, Sendable {
    let key: String

    static let loss = Metric(key: "loss")

    var name: String {
        switch key {
        case "rouge1": "ROUGE-1"
        case "rouge2": "ROUGE-2"
        case "rougeL": "ROUGE-L"
        case "rougeLsum": "ROUGE-Lsum"
        case "bleu": "BLEU"
        case "nist": "NIST"
        case "meteor": "METEOR"
        case "cider": "CIDEr"
        case DetailRecall.key: "Detail recall"
        case "exactMatch": "Exact match"
        case "accuracy": "Accuracy"
        case "macroF1": "Macro F1"
        case "microF1": "Micro F1"
        case "mcc": "MCC"
        case "pearson": "Pearson"
        case "spearman": "Spearman"
        case "mse": "MSE"
        case "mae": "MAE"
        case "entityF1": "Entity F1"
        case "entityPrecision": "Precision"
        case "entityRecall": "Recall"
        case "cosineSpearman": "Spearman of cosines"
        case "cosinePearson": "Pearson of cosines"
        case "recall1": "Recall@1"
        case "mrr": "MRR"
        case "perplexity": "Perplexity"
        case "loss": "Loss"
        default: key
        }
    }

    /// Errors and losses: shown unscaled, lower is better.
    private var isError: Bool { ["loss", "mse", "mae", "perplexity"].contains(key) }

    /// Scores outside 0 … 1: shown unscaled, higher is better.
    private var isOpenScore: Bool { ["nist", "cider"].contains(key) }

    var higherIsBetter: Bool { !isError }

    /// Factor from the stored value to the displayed one.
    var scale: Double { isError || isOpenScore ? 1 : 100 }
    var places: Int { key == "perplexity" || isOpenScore ? 2 : isError ? 3 : 1 }
    var unit: String { key == "loss" ? "nats" : key == "nist" ? "bits" : isError || isOpenScore ? "" : "points" }

    /// What the metric measures.
    var explanation: String {
        switch key {
        case "rouge1":
            "F1 overlap of unigrams (single words) between output and target, in percent. Higher is better."
        case "rouge2":
            "F1 overlap of bigrams (pairs of adjacent words), in percent: stricter than ROUGE-1."
        case "rougeL":
            "F1 of the longest common subsequence of words, in percent: rewards the right order."
        case "rougeLsum": "ROUGE-L computed line by line, in percent."
        case "bleu": "Precision of n-grams of one to four words with a brevity penalty, in percent."
        case "nist":
            "Like BLEU, but n-grams are weighted by their information, so rare ones count more, in bits; unbounded."
        case "meteor":
            "Matched words, exact or stemmed, weighted toward recall, with a penalty for fragmented matches, in percent."
        case "cider": "Cosine similarity to the references over TF-IDF-weighted n-grams, 0 … 10."
        case "accuracy": "Examples with the correct class, in percent. Higher is better."
        case "macroF1":
            "F1 per class, averaged with equal weights, in percent: rare classes count as much as frequent ones."
        case "microF1": "F1 over all decisions pooled, in percent: frequent classes count more."
        case "mcc":
            "Matthews correlation of predicted and true classes, times 100: −100 … 100, where 0 is chance level."
        case "pearson", "cosinePearson": "Pearson correlation of predicted and true values, times 100."
        case "spearman", "cosineSpearman":
            "Spearman rank correlation of predicted and true values, times 100: only the order counts."
        case "mse": "Mean squared error. Lower is better."
        case "mae": "Mean absolute error. Lower is better."
        case "entityF1": "F1 of entities with the correct type and boundaries, in percent."
        case "entityPrecision": "Precision: predicted entities that are correct, in percent."
        case "entityRecall": "Recall: reference entities that were found, in percent."
        case "recall1": "Texts whose paired text is the nearest of all candidates, in percent."
        case "mrr": "Mean reciprocal rank of a text's paired text among all candidates, times 100."
        case "perplexity":
            "Exponential of the mean loss per token. Lower is better."
        case DetailRecall.key:
            "Names, numbers and content words shared by prompt and target that the output also contains, in percent. "
                + "Words common to most targets do not count."
        case "exactMatch": "Outputs identical to the target, in percent."
        case "loss":
            "Cross-entropy per target token of the test examples, in nats. Lower is better."
        default: "A score between 0 and 1, in percent. Higher is better."
        }
    }

    /// Metrics in the order readers expect; others follow by name.
    static let order = [
        "accuracy", "macroF1", "microF1", "mcc", "entityF1", "entityPrecision", "entityRecall", "spearman", "pearson",
        "mse", "mae", "cosineSpearman", "cosinePearson", "recall1", "mrr", "rouge1", "rouge2", "rougeL",
        DetailRecall.key,
        "rougeLsum", "bleu", "nist", "meteor", "cider", "exactMatch", "perplexity",
    ]

    func format(_ value: Double, with numbers: NumberFormat) -> String {
        numbers.decimal(value * scale, places: places)
    }

    /// A difference with its sign, and its interval in brackets.
    func format(_ difference: Difference, with numbers: NumberFormat) -> (value: String, interval: String) {
        func text(_ value: Double) -> String { numbers.signed(value * scale, places: places) }
        return (text(difference.value), "[\(text(difference.low)), \(text(difference.high))]")
    }

    /// The value as it is shown, so that differences of shown values add up for the reader.
    func rounded(_ value: Double) -> Double {
        let unit = (0..<places).reduce(1.0) { power, _ in power * 10 }
        return (value * scale * unit).rounded() / unit
    }

    /// How much better `a` is than `b`, in displayed units; negative if it is worse.
    func gain(of a: Statistic, over b: Statistic) -> Double {
        let difference = rounded(a.mean) - rounded(b.mean)
        return higherIsBetter ? difference : -difference
    }

    func isBetter(_ a: Double, than b: Double) -> Bool { higherIsBetter ? a > b : a < b }
}

/// What the intervals of a report cover. One report never mixes the two: they answer different questions.
enum Spread: Sendable {
    /// One standard deviation to each side of the mean.
    case seeds
    /// The 95 % bootstrap interval.
    case testRows
}

extension Statistic {
    func interval(over spread: Spread) -> ClosedRange<Double>? {
        guard mean.isFinite else { return nil }
        switch spread {
        case .seeds:
            guard let sd, sd.isFinite, sd >= 0 else { return nil }
            return (mean - sd)...(mean + sd)
        case .testRows:
            guard let low, let high, low.isFinite, high.isFinite, low <= high else { return nil }
            return low...high
        }
    }

    /// Whether the two intervals overlap, so that the values are statistically indistinguishable; `nil` if neither
    /// has an interval. A value without one, such as the base model's over seeds, counts as a point.
    func overlaps(_ other: Statistic, over spread: Spread) -> Bool? {
        let (own, others) = (interval(over: spread), other.interval(over: spread))
        if own == nil, others == nil { return nil }
        return (own ?? mean...mean).overlaps(others ?? other.mean...other.mean)
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

extension ComparisonReport {
    /// All metrics that any run has, in display order.
    var metrics: [Metric] {
        let keys = Set(runs.flatMap(\.quality.keys))
        let usual = Metric.order.filter(keys.contains)
        return (usual + keys.subtracting(usual).sorted()).map(Metric.init)
    }

    /// The metric that ranks the runs: the primary one, or else the first that any run has a value for.
    var ranking: Metric? {
        ([Metric(key: primaryMetric)] + metrics + [.loss])
            .first { metric in runs.contains { $0.statistic(metric) != nil } }
    }

    /// The untrained model; in its original weight format if it was measured in several.
    var base: MethodRun? {
        runs.first { $0.isBase && $0.label == "base" } ?? runs.first(where: \.isBase) ?? runs.first(where: \.isHead)
    }
    var full: MethodRun? { runs.first(where: \.isFull) }

    /// The run the report is about: the best adapter, else full fine-tuning, else the first run.
    var subject: MethodRun? {
        guard let metric = ranking else { return runs.first(where: \.isAdapter) ?? full ?? runs.first }
        let adapters = runs.filter { $0.isAdapter && $0.statistic(metric) != nil }
        return best(of: adapters, by: metric) ?? full ?? runs.first
    }

    func best(of runs: [MethodRun], by metric: Metric) -> MethodRun? {
        var best: (run: MethodRun, mean: Double)?
        for run in runs {
            guard let mean = run.statistic(metric)?.mean else { continue }
            if let known = best, !metric.isBetter(mean, than: known.mean) { continue }
            best = (run, mean)
        }
        return best?.run
    }

    /// Whether the models of the runs differ in their weight formats.
    var showsModelSizes: Bool {
        runs.contains { $0.modelBytes != nil }
            && (runs.contains(where: \.isRequantized) || Set(runs.map(\.weights)).count > 1)
    }

    /// Seeds per trained method.
    var seedCount: Int { runs.filter(\.isTrained).map(\.seedCount).max() ?? 0 }

    var spread: Spread {
        runs.contains { run in run.quality.values.contains { $0.sd != nil } } ? .seeds : .testRows
    }

    /// At most three metrics for places with little room, the ranking one among them; and the recall of details.
    var leadingMetrics: [Metric] {
        let known = metrics.filter { metric in runs.contains { $0.quality[metric.key] != nil } }
        // Texts without prompts: what was generated for them means little.
        if let ranking, ranking.key == "perplexity" { return [ranking] }
        let details = known.filter { $0.key == DetailRecall.key }
        let shown = Array(known.filter { $0.key != "rougeLsum" && !details.contains($0) }.prefix(3)) + details
        guard let ranking, ranking != .loss, !shown.contains(ranking) else { return shown }
        return [ranking] + shown.prefix(2) + details
    }

    /// Names for places with little room: labels up to the first bracket or comma where that still tells
    /// all runs apart.
    var shortLabels: [String] {
        let short = runs.map { run -> String in
            // What says how weights are stored follows the brackets.
            let ends = [run.weights.map { " over \($0)" }, run.storedAs.map { " → \($0)" }].compactMap(\.self)
            var (label, end) = (run.label, "")
            for part in ends.reversed() where label.hasSuffix(part) {
                label.removeLast(part.count)
                end = part + end
            }
            let head = label.prefix { $0 != "(" && $0 != "," }.trimmingCharacters(in: .whitespaces)
            return (head.isEmpty ? label : head) + end
        }
        return Set(short).count == Set(runs.map(\.label)).count ? short : runs.map(\.label)
    }

    func shortLabel(_ run: MethodRun) -> String {
        runs.firstIndex { $0.label == run.label }.map { shortLabels[$0] } ?? run.label
    }
}

/// Display names and scales of metrics, for tables outside of reports.
public enum MetricNames {
    /// Keys in the order that readers expect.
    public static func ordered(_ keys: Set<String>) -> [String] {
        let usual = Metric.order.filter(keys.contains)
        return usual + keys.subtracting(usual).sorted()
    }
    public static func name(_ key: String) -> String { Metric(key: key).name }
    /// Factor from the value to what is displayed: 100 for scores in 0 … 1.
    public static func scale(_ key: String) -> Double { Metric(key: key).scale }
}
