/// The columns of a comparison, each declared once. A new column is one entry here.
extension ComparisonReport {
    /// The columns of this report in the terminal's order; the page groups them by section.
    var columns: [ReportColumn] {
        qualityColumns + quantizationColumns + distanceColumns + modelSizeColumns
            + [trainable, share, learningRate, speed, peakMemory, fileSize, steps, trainingTime] + forgettingColumns
            + [mergedInference, unmergedInference] + mergeDriftColumns
    }

    /// The columns of a sweep's table: quality with its standard deviation over seeds, and cost.
    var sweepColumns: [ReportColumn] {
        let metric = ranking ?? .loss
        return [deviation(metric)] + (metric == .loss ? [] : [mean(.loss)])
            + [trainable, share, learningRate, speed, peakMemory] + forgettingColumns
    }

    /// The metrics of the terminal's table: the leading ones or, without any, the loss.
    var tableMetrics: [Metric] { leadingMetrics.isEmpty ? [.loss] : leadingMetrics }

    // MARK: - Quality

    /// The terminal has the leading metrics alone, or the loss where there are none; the page has all of them and the loss.
    private var qualityColumns: [ReportColumn] {
        let leading = leadingMetrics
        func column(_ metric: Metric, isInTerminal: Bool, section: ReportColumn.Page.Section?) -> ReportColumn {
            ReportColumn(
                content: .quality(metric),
                terminal: isInTerminal ? .init(metric.name, importance: metric == ranking ? 100 : 50) : nil,
                page: section.map {
                    .init(
                        $0, metric.name, unit: metric == .loss ? "nats/token" : "", falling: metric.higherIsBetter,
                        explanation: metric.explanation)
                })
        }
        let others = metrics.filter { !leading.contains($0) }
        var columns = leading.map { column($0, isInTerminal: true, section: .leadingQuality) }
        columns += others.map { column($0, isInTerminal: false, section: .otherQuality) }
        let hasLoss = runs.contains { $0.loss != nil }
        if leading.isEmpty || hasLoss {
            columns.append(column(.loss, isInTerminal: leading.isEmpty, section: hasLoss ? .otherQuality : nil))
        }
        return columns
    }

    /// The change from quantizing trained models. The page has it beside the sizes of models alone.
    private var quantizationColumns: [ReportColumn] {
        guard runs.contains(where: \.isRequantized), let metric = ranking else { return [] }
        return [
            ReportColumn(
                content: .difference(metric) { run in
                    guard run.isRequantized else {
                        return .reference(
                            terminal: NumberFormat.missing, page: "the trained model itself", value: nil)
                    }
                    return quantizationChange(run, by: metric).map { .difference($0) } ?? .unknown
                },
                terminal: .init("quantized", "Δ \(metric.name)", importance: 86),
                page: showsModelSizes
                    ? .init(
                        .storage, "Quantization", unit: "Δ \(metric.name)", falling: metric.higherIsBetter,
                        explanation:
                            "Change from merging the adapter and quantizing the model, with the 95\(space)% "
                            + "interval of the paired difference on the same test examples (and seeds).") : nil)
        ]
    }

    /// The difference of each run from the best by the ranking metric.
    private var distanceColumns: [ReportColumn] {
        let all = reportedRuns
        guard all.count > 1, let metric = ranking, let best = best(of: all, by: metric) else { return [] }
        let top = best.statistic(metric)?.mean
        let differences = all.map { difference(of: $0, to: best, by: metric) }
        func isBest(_ run: ReportedRun) -> Bool { run.statistic(metric)?.mean == top }
        // The page has the column for the best alone, too; the terminal has no room for that.
        let isInTerminal = all.contains { !isBest($0) && differences[$0.id] != nil }
        guard differences.contains(where: { $0 != nil }) else { return [] }
        return [
            ReportColumn(
                content: .difference(metric) { run in
                    if isBest(run) { return .reference(terminal: "best", page: "the best", value: 0) }
                    return differences[run.id].map { .difference($0) } ?? .unknown
                },
                terminal: isInTerminal ? .init("vs. best", metric.name, importance: 55) : nil,
                page: .init(
                    .distance, "vs. best", unit: metric.name, falling: metric.higherIsBetter,
                    explanation: "Difference from the best method with its 95\(space)% interval: "
                        + (hasDifferences
                            ? "a paired bootstrap over the test examples and, with several seeds, the variance over seeds"
                            : "the variance over seeds")
                        + ". If the interval contains 0, the two are statistically indistinguishable."))
        ]
    }

    private func mean(_ metric: Metric) -> ReportColumn {
        ReportColumn(
            content: .number(
                .init(
                    value: { $0.statistic(metric)?.mean }, write: { metric.format($1, with: $0) },
                    reason: { _ in "not measured" })),
            terminal: .init(metric.name, importance: 50), page: nil)
    }

    private func deviation(_ metric: Metric) -> ReportColumn {
        ReportColumn(
            content: mean(metric).content,
            terminal: .init(metric.name, importance: 100) { numbers, run in
                run.statistic(metric).map { value in
                    metric.format(value.mean, with: numbers)
                        + (value.sd.map { " ±" + metric.format($0, with: numbers) } ?? "")
                }
            }, page: nil)
    }

    // MARK: - Sizes and cost

    private var modelSizeColumns: [ReportColumn] {
        guard showsModelSizes else { return [] }
        return [
            number(
                { $0.modelBytes.map(Double.init) }, { $0.bytes($1) }, reason: { _ in "not measured" },
                terminal: .init("model", "size", importance: 88),
                page: .init(
                    .storage, "Model\nsize",
                    explanation:
                        "Size of all weight files needed to run the model: the base as stored plus the "
                        + "adapter, or the whole model if the adapter was merged."))
        ]
    }

    private var trainable: ReportColumn {
        number(
            { $0.isRequantized ? nil : Double($0.trainable) }, { $0.decimal($1, places: 0) }, reason: untrained,
            terminal: .init("trainable", "parameters", importance: 90),
            page: .init(
                .cost, "Trainable", unit: "parameters",
                explanation: "Trained parameters. Optimizer state and gradients grow with them."))
    }

    private var share: ReportColumn {
        number(
            { $0.isRequantized ? nil : $0.trainableShare }, { $0.percent($1) },
            reason: { $0.isRequantized ? untrained($0) : "the total is unknown" },
            terminal: .init("share", importance: 80),
            page: .init(
                .cost, "Share",
                explanation: "Trainable parameters divided by all parameters, those of the adapter included."))
    }

    private var speed: ReportColumn {
        number(
            { $0.tokensPerSecond }, { $0.significant($1) }, reason: untrained,
            terminal: .init("tokens", "/s", importance: 70) { numbers, run in
                run.tokensPerSecond.map { numbers.decimal($0, places: $0 < 99.5 ? 1 : 0) }
            },
            page: .init(
                .cost, "Speed", unit: "tokens/s", falling: true,
                explanation: "Training throughput in tokens per second, without padding, median over seeds."))
    }

    private var peakMemory: ReportColumn {
        number(
            { $0.peakBytes.map(Double.init) }, { $0.bytes($1) }, reason: { _ in "not measured" },
            terminal: .init("peak", "memory", importance: 75),
            page: .init(
                .cost, "Peak\nmemory",
                explanation: "Largest resident memory of the whole process while training; for the untrained model, "
                    + "while evaluating. 1 GB is 10⁹ bytes."))
    }

    private var fileSize: ReportColumn {
        number(
            { $0.adapterBytes.map(Double.init) }, { $0.bytes($1) }, reason: untrained,
            terminal: .init("file", "size", importance: 60),
            page: .init(
                .cost, "File\nsize",
                explanation: "Size of the saved adapter, or of the whole model after full fine-tuning."))
    }

    /// The terminal shows both times of inference in this column.
    private var mergedInference: ReportColumn {
        number(
            { $0.inference?.merged }, { $0.significant($1) }, reason: { _ in "not measured" },
            terminal: .init("ms/\(inferenceUnit)", "merged/un", importance: 40) { numbers, run in
                run.inference.map { numbers.significant($0.merged) + "/" + numbers.significant($0.unmerged) }
            },
            page: .init(
                .cost, "ms/\(inferenceUnit)", unit: "merged",
                explanation:
                    "Milliseconds per generated token (greedy decoding, batch size 1) with the adapter merged into the weights."
            ))
    }

    private var unmergedInference: ReportColumn {
        number(
            { $0.inference?.unmerged }, { $0.significant($1) }, reason: { _ in "not measured" }, terminal: nil,
            page: .init(
                .cost, "ms/\(inferenceUnit)", unit: "unmerged",
                explanation: "The same with the adapter unmerged, which is how several adapters share one base model."
            ))
    }

    // MARK: - Training

    private var learningRate: ReportColumn {
        number(
            { $0.learningRate }, { $0.rate($1) }, reason: untrained,
            terminal: .init("learn.", "rate", importance: 20),
            page: .init(
                .training, "Learning\nrate",
                explanation:
                    "Peak learning rate of the schedule; if several were tried, the one with the lowest validation loss."
            ))
    }

    private var steps: ReportColumn {
        number(
            { $0.steps > 0 ? Double($0.steps) : nil }, { $0.decimal($1, places: 0) }, reason: untrained,
            terminal: nil, page: .init(.training, "Steps", explanation: "Optimizer steps of each training run."))
    }

    private var trainingTime: ReportColumn {
        number(
            { $0.trainingSeconds }, { $0.duration(seconds: $1) }, reason: untrained, terminal: nil,
            page: .init(
                .training, "Training\ntime",
                explanation: "Wall-clock time of one training run on the machine named below."))
    }

    private var forgettingColumns: [ReportColumn] {
        guard let text = runs.compactMap(\.retention).first?.text else { return [] }
        return [
            number(
                { $0.retention.map { $0.after.mean - $0.before } }, { $0.signed($1, places: 3) },
                reason: { _ in "not measured" },
                terminal: .init("forget", "nats", importance: 45) { numbers, run in
                    run.retention.map { numbers.signed($0.after.mean - $0.before, places: 2) }
                },
                page: .init(
                    .training, "Forgetting", unit: "nats/token",
                    explanation:
                        "Increase of the loss on general text (\(text)) through training, mean over seeds; negative if it fell."
                ))
        ]
    }

    private var mergeDriftColumns: [ReportColumn] {
        guard runs.contains(where: { $0.inference?.largestDifference != nil }) else { return [] }
        return [
            number(
                { $0.inference?.largestDifference }, { $0.rate($1) }, reason: { _ in "nothing to merge" },
                terminal: nil,
                page: .init(
                    .training, "Merge drift", unit: "largest logit",
                    explanation:
                        "Largest absolute difference of any logit between merged and unmerged: the rounding error of merging."
                ))
        ]
    }

    // MARK: -

    private func number(
        _ value: @escaping (ReportedRun) -> Double?, _ write: @escaping (NumberFormat, Double) -> String,
        reason: @escaping (ReportedRun) -> String, terminal: ReportColumn.Terminal?, page: ReportColumn.Page
    ) -> ReportColumn {
        ReportColumn(
            content: .number(.init(value: value, write: write, reason: reason)), terminal: terminal, page: page)
    }

    private func untrained(_ run: ReportedRun) -> String {
        run.isBase ? "not trained" : run.isRequantized ? "a quantized copy of another method's model" : "not measured"
    }

    /// Between a number and its unit on the page.
    private var space: String { NumberFormat.page.space }
}
