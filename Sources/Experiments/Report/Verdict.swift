/// The conclusions of a comparison in sentences, derived from its results alone.
struct Verdict {
    /// The recommended method, with reasons.
    var choice: String?
    /// The subject's gain over the base model, and its gap to full fine-tuning.
    var quality: [String] = []
    /// The subject's parameters, memory and time.
    var cost: String?
    /// Other adapters that are statistically indistinguishable from the subject.
    var rivals: String?
    /// A far smaller adapter, and its loss of quality.
    var frugal: String?
    /// The best of the models that were quantized after training, and its loss of quality.
    var shipping: [String] = []
    /// What the intervals cover.
    var spread: String?

    var sentences: [String] {
        [choice].compactMap(\.self) + quality + [cost, rivals, frugal].compactMap(\.self) + shipping
            + [spread].compactMap(\.self)
    }

    init(_ report: ComparisonReport, numbers: NumberFormat) {
        guard let subject = report.subject else {
            quality = ["This report has no methods."]
            return
        }
        let writer = Writer(report: report, subject: subject, numbers: numbers)
        choice = writer.choice()
        quality = writer.quality().map(Self.sentence)
        cost = writer.cost().map(Self.sentence)
        rivals = writer.rivals().map(Self.sentence)
        frugal = writer.frugal().map(Self.sentence)
        shipping = writer.shipping().map(Self.sentence)
        spread = writer.spread()
    }

    /// Some methods' names begin with a small letter, and a sentence doesn't, unless it is part of a name such as rsLoRA.
    private static func sentence(_ text: String) -> String {
        // Not every metric has a unit.
        let text = text.replacing("  ", with: " ")
        let word = text.prefix { !$0.isWhitespace && $0 != "\u{A0}" }
        return word.allSatisfy { !$0.isUppercase } ? text.prefix(1).uppercased() + text.dropFirst() : text
    }
}

private struct Writer {
    private static let oneSeed = "One seed per method, so the variance over seeds is unknown"

    let report: ComparisonReport
    let subject: ReportedRun
    let numbers: NumberFormat

    private var name: String { name(of: subject) }

    /// A short name stays on one line where the format has a space for that.
    private func name(of run: ReportedRun) -> String {
        let label = report.shortLabel(run)
        return numbers.space == " " || label.count > 20 ? label : label.replacing(" ", with: "\u{A0}")
    }

    /// Where several trained methods were compared: the cheapest of those statistically indistinguishable from the best.
    func choice() -> String? {
        guard let tradeOffs = TradeOffs(report), let (entry, best, among) = tradeOffs.choice(report) else {
            return nil
        }
        let run = entry.run
        var reasons: [String] = []
        if let share = run.trainableShare, run.trainable > 0 {
            reasons.append("\(numbers.percent(share)) of the parameters")
        }
        if let bytes = run.peakBytes { reasons.append("\(numbers.bytes(bytes)) of memory") }
        if let speed = run.tokensPerSecond, speed.isFinite {
            reasons.append("\(numbers.significant(speed)) tokens/s in training")
        }
        if let inference = entry.values[.inference], report.base?.inference != nil {
            let merged = run.isAdapter && run.inference?.isMergeable != false ? " once merged" : ""
            reasons.append(
                abs(inference - 1) < 0.05
                    ? "the base model's speed\(merged)"
                    : "\(numbers.factor(inference)) times the base model's time per token\(merged)")
        }
        let value = tradeOffs.metric.format(entry.values[.quality] ?? .nan, with: numbers)
        let quality = "\(tradeOffs.metric.name) \(value)"
        let why =
            entry.run.id == best.run.id
            ? (among == 1
                ? "its \(quality) is clearly the best"
                : "its \(quality) is the best, and it is the cheapest of \(among) statistically indistinguishable methods")
            : "its \(quality) is statistically indistinguishable from the best (\(name(of: best.run)), "
                + "\(tradeOffs.metric.format(best.values[.quality] ?? .nan, with: numbers))), and it is the cheapest of these \(among) methods"
        guard let last = reasons.popLast() else { return "Choose \(name(of: run)): \(why)." }
        let list = reasons.isEmpty ? last : reasons.joined(separator: ", ") + " and " + last
        return "Choose \(name(of: run)): \(why), with \(list)."
    }

    func quality() -> [String] {
        guard let metric = report.ranking, let value = subject.statistic(metric) else {
            return ["\(name) has no finite quality figure, so there is nothing to compare."]
        }
        let shown = metric.format(value.mean, with: numbers)
        if subject.isBase {
            return [
                "Only the untrained model was measured: \(metric.name) \(shown). There is nothing to compare it with."
            ]
        }
        var sentences: [String] = []
        let adapters = report.reportedRuns.filter { $0.isAdapter && $0.statistic(metric) != nil }
        let name = adapters.count > 1 ? "\(name), the best of \(adapters.count) adapters," : name
        if let base = report.base, let level = base.statistic(metric) {
            sentences.append(against(base: level, value, metric, isClear(subject, base, metric), name: name))
        } else {
            sentences.append("\(name) reaches \(metric.name) \(shown); the base model was not measured.")
        }
        if subject.isAdapter {
            if let full = report.full, full.statistic(metric) != nil {
                sentences.append(against(full: full, metric))
            } else {
                sentences.append("Full fine-tuning was not measured, so the gap to it is unknown.")
            }
        }
        return sentences
    }

    /// Whether the difference of two runs is statistically significant; `nil` without intervals.
    private func isClear(_ run: ReportedRun, _ other: ReportedRun, _ metric: Metric) -> Bool? {
        report.isWithinSpread(run, of: other, by: metric).map { !$0 }
    }

    private func against(base: Statistic, _ value: Statistic, _ metric: Metric, _ isClear: Bool?, name: String)
        -> String
    {
        let (from, to) = (metric.format(base.mean, with: numbers), metric.format(value.mean, with: numbers))
        let gain = metric.gain(of: value, over: base)
        let size = numbers.decimal(abs(gain), places: metric.places)
        if isClear == false {
            return
                "\(name) reaches \(metric.name) \(to) against \(from) for \(baseName); the difference is not "
                + "statistically significant, so this comparison does not show that training helped."
        }
        let rises = (value.mean > base.mean)
        let verb = rises ? "raises" : "lowers"
        let judgment = gain >= 0 ? "better" : "worse"
        let hedge =
            isClear == nil
            ? "; without an interval, its significance is unknown" : ""
        return "\(name) \(verb) \(metric.name) from \(from) to \(to), \(size) \(metric.unit) \(judgment) than "
            + "\(baseName)\(hedge)."
    }

    /// The reference that training is compared with: a model without a head is measured with a trained head.
    private var baseName: String {
        report.base?.isHead == true ? "the frozen base model with only a trained head" : "the base model"
    }

    private func against(full run: ReportedRun, _ metric: Metric) -> String {
        guard let full = run.statistic(metric), let value = subject.statistic(metric) else { return "" }
        let shown = metric.format(full.mean, with: numbers)
        let gain = metric.gain(of: full, over: value)
        let size = numbers.decimal(abs(gain), places: metric.places)
        let comparison =
            size.contains { "123456789".contains($0) }
            ? "\(size) \(metric.unit) \(gain > 0 ? "better" : "worse")" : "the same"
        var sentence = "Full fine-tuning reaches \(shown), \(comparison)"
        switch isClear(subject, run, metric) {
        case false?: sentence += "; the difference is not statistically significant"
        case nil: sentence += "; without an interval, its significance is unknown"
        case true?:
            // A share of the gain is meaningful only where both gains are significant.
            guard let untrained = report.base, let base = untrained.statistic(metric),
                isClear(run, untrained, metric) == true, isClear(subject, untrained, metric) == true
            else { break }
            let share = metric.gain(of: value, over: base) / metric.gain(of: full, over: base)
            if gain > 0, share > 0, share < 1 {
                sentence +=
                    ": \(name) retains \(numbers.decimal(share * 100, places: 0))\(numbers.space)% of its gain"
            }
        }
        return sentence + "."
    }

    func cost() -> String? {
        guard !subject.isBase else { return nil }
        var parts: [String] = []
        if subject.trainable > 0 {
            let share = subject.trainableShare.map { " (\(numbers.percent($0)))" } ?? ""
            parts.append("trains \(numbers.integer(subject.trainable)) parameters\(share)")
        }
        if let own = subject.peakBytes, own > 0 {
            if subject.isAdapter, let full = report.full?.peakBytes, full > 0 {
                let share = numbers.decimal(Double(own) / Double(full) * 100, places: 0) + numbers.space + "%"
                parts.append(
                    "needs \(share) of full fine-tuning's peak memory (\(numbers.bytes(own)) "
                        + "instead of \(numbers.bytes(full)))")
            } else {
                parts.append("needs \(numbers.bytes(own)) of memory")
            }
        }
        if let own = subject.tokensPerSecond, own.isFinite, own > 0 {
            if subject.isAdapter, let full = report.full?.tokensPerSecond, full.isFinite, full > 0 {
                parts.append(speed(own / full))
            } else {
                parts.append("trains \(numbers.decimal(own, places: 0)) tokens per second")
            }
        }
        if let own = subject.adapterBytes, own > 0 {
            if subject.isAdapter, let full = report.full?.adapterBytes, full > own {
                parts.append(
                    "saves a file of \(numbers.bytes(own)) instead of \(numbers.bytes(full))")
            } else {
                parts.append("saves a file of \(numbers.bytes(own))")
            }
        }
        guard let last = parts.popLast() else { return nil }
        return "\(name) " + (parts.isEmpty ? last : parts.joined(separator: ", ") + " and " + last) + "."
    }

    private func speed(_ ratio: Double) -> String {
        if abs(ratio - 1) < 0.05 { return "trains about as fast" }
        if ratio > 1 { return "trains \(numbers.factor(ratio)) times as fast" }
        return "trains at \(numbers.decimal(ratio * 100, places: 0))\(numbers.space)% of its speed"
    }

    func rivals() -> String? {
        guard let metric = report.ranking, subject.isAdapter, subject.statistic(metric) != nil else { return nil }
        let close = report.reportedRuns.filter { run in
            run.isAdapter && run.id != subject.id && isClear(run, subject, metric) == false
        }
        guard let smallest = close.min(by: { $0.trainable < $1.trainable }) else { return nil }
        let names = close.map(name(of:))
        let list =
            names.count == 1
            ? "\(names[0]) is" : names.dropLast().joined(separator: ", ") + " and \(names[names.count - 1]) are"
        var sentence = "\(list) statistically indistinguishable from \(name)"
        if smallest.trainable < subject.trainable, smallest.trainable > 0 {
            let who = names.count == 1 ? "with only" : "and \(name(of: smallest)) has only"
            sentence += ", \(who) \(numbers.integer(smallest.trainable)) trained parameters"
        }
        return sentence + "."
    }

    /// A much smaller adapter that is significantly worse, and by how much: the other end of the trade-off.
    func frugal() -> String? {
        guard let metric = report.ranking, subject.isAdapter, let value = subject.statistic(metric) else {
            return nil
        }
        let small = report.reportedRuns.filter { run in
            guard run.isAdapter, run.trainable > 0, run.trainable <= subject.trainable / 10 else { return false }
            return run.statistic(metric) != nil && isClear(run, subject, metric) == true
        }
        guard let run = report.best(of: small, by: metric), let other = run.statistic(metric) else { return nil }
        let loss = numbers.decimal(abs(metric.gain(of: value, over: other)), places: metric.places)
        let factor = numbers.factor(Double(subject.trainable) / Double(run.trainable))
        return "\(name(of: run)) trains \(factor) times fewer parameters (\(numbers.integer(run.trainable))) and "
            + "reaches \(metric.format(other.mean, with: numbers)), \(loss) \(metric.unit) worse."
    }

    /// The best of the quantized models, and those whose adapters were merged without requantization.
    func shipping() -> [String] {
        guard let metric = report.ranking else { return [] }
        let stored = report.reportedRuns.filter { $0.isQuantized && $0.statistic(metric) != nil }
        guard let best = report.best(of: stored, by: metric), let value = best.statistic(metric) else { return [] }
        var sentences: [String] = []
        let size = best.modelBytes.map { " in \(numbers.bytes($0))" } ?? ""
        var first =
            stored.count == 1
            ? "Stored as \(name(of: best)), the model has \(metric.name) \(metric.format(value.mean, with: numbers))\(size)"
            : "Of the \(stored.count) quantized models with merged adapters, \(name(of: best)) is best: "
                + "\(metric.name) \(metric.format(value.mean, with: numbers))\(size)"
        if let change = report.quantizationChange(best, by: metric), !isMerged(best) {
            let parts = metric.format(change, with: numbers)
            first +=
                change.isWithinSpread
                ? "; the change from quantization is not statistically significant (\(parts.value) \(parts.interval))"
                : "; quantization changed it by \(parts.value) \(parts.interval)"
        }
        let close = stored.filter { $0.id != best.id && isClear($0, best, metric) == false }
        if !close.isEmpty {
            let names = close.map(name(of:))
            first += ". Statistically indistinguishable from it: \(names.joined(separator: ", "))"
        }
        sentences.append(first + ".")
        for run in stored where isMerged(run) {
            guard let source = report.source(of: run),
                let before = source.statistic(metric), let after = run.statistic(metric)
            else { continue }
            let (beside, within) = (
                metric.format(before.mean, with: numbers), metric.format(after.mean, with: numbers)
            )
            let adapter = name(of: source)
            sentences.append(
                beside == within
                    ? "\(adapter) merges into the zero points of its base without loss: \(metric.name) \(within) unmerged and merged."
                    : "\(adapter) has \(metric.name) \(beside) unmerged and \(within) merged into the zero points of its base."
            )
        }
        return sentences
    }

    private func isMerged(_ run: ReportedRun) -> Bool { run.storedAs == MethodRun.merged }

    func spread() -> String? {
        let statistics = report.runs.compactMap { run in report.ranking.flatMap { run.statistic($0) } }
        let intervals = statistics.contains { $0.interval(over: report.spread) != nil }
        let isPaired = report.ranking.map { metric in
            report.runs.contains { $0.differences?.contains { $0.metric == metric.key } == true }
        }
        let judged =
            isPaired == true
            ? " Significance is judged by differences on the same test examples (paired bootstrap)"
                + (report.spread == .seeds ? " and over seeds." : ".") : ""
        if report.spread == .seeds {
            return "± is the standard deviation over \(report.seedCount) seeds.\(judged)"
        }
        let ran = report.runs.contains(where: \.isTrained) ? Self.oneSeed : nil
        let rows = "intervals are over test examples (95\(numbers.space)% bootstrap)"
        switch (ran, intervals) {
        case (let ran?, true): return "\(ran); \(rows).\(judged)"
        case (let ran?, false): return "\(ran), and no intervals were computed."
        case (nil, true): return rows.prefix(1).uppercased() + rows.dropFirst() + ".\(judged)"
        case (nil, false): return nil
        }
    }
}
