import Experiments
import Foundation
import PEFTSupport
import Training

/// Shows the progress of a comparison or a sweep.
struct ComparisonProgress {
    private let display: ProgressDisplay
    private let seeds: Int

    init(isQuiet: Bool, seeds: Int) {
        display = ProgressDisplay(isQuiet: isQuiet)
        self.seeds = seeds
    }

    func finish() { display.finish() }

    func show(_ event: ComparisonEvent) {
        switch event {
        case .started(let method, let index, let count): display.finish("[\(index + 1)/\(count)] \(method)")
        case .trying(let method, let rate):
            display.finish(String(format: "%@: trying learning rate %.1e", method, rate))
        case .tried(_, let rate, let loss):
            display.finish(
                loss.map { String(format: "  %.1e: validation loss %.4f", rate, $0) }
                    ?? String(format: "  %.1e: diverged", rate))
        case .training(let method, let seed, let progress):
            display.update(
                share: Double(progress.step) / Double(progress.totalSteps),
                [
                    .init(method + (seeds > 1 ? " seed \(seed + 1)" : ""), rank: 3),
                    .init("step \(progress.step)/\(progress.totalSteps)"),
                    .init(String(format: "loss %.3f", progress.loss), rank: 2),
                    .init(String(format: "%.0f tokens/s", progress.tokensPerSecond), rank: 4),
                    .init("\(Console.duration(progress.secondsLeft)) left", rank: 1),
                ])
        case .evaluating(let method, _, let rows, let count):
            display.update(
                share: Double(rows) / Double(count),
                "\(method)  \(rows) of \(counted(count, "test example")) generated")
        case .skipped(let method): display.finish("  \(method.label) skipped: \(method.reason)")
        case .notReached(let methods):
            let names = methods.map(\.label).joined(separator: ", ")
            let count = counted(methods.count, "method")
            display.finish(
                HelpPage.wrap("the budget doesn't suffice for \(count): \(names)", first: "  ", rest: "    "))
        case .exceedsBudget(let method, let seconds, let left):
            display.finish(
                HelpPage.wrap(
                    "a run of \(method) takes about \(Console.duration(seconds)), and \(Console.duration(left)) of the budget are left; it is trained all the same, as the best so far",
                    first: "  ", rest: "    "))
        case .finished(let run, let report):
            let metric = MetricDescription.of(report.primaryMetric)
            let quality = run.quality[metric.key].map {
                String(format: "%@ %.2f", metric.name, $0.mean * metric.scale)
            }
            let time = run.trainingSeconds.map { "trained in \(Console.duration($0))" }
            let label = run.storedAs.map { "→ \($0)" }
            display.finish("  " + [label, quality, time].compactMap(\.self).joined(separator: ", "))
        }
    }
}
