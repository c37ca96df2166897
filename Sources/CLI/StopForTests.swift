import Experiments
import Foundation
import Training

/// Stops at a known step, so that tests of resuming need no timing: `PEFT_TEST_STOP=2:15` raises signal 15 after step 2
/// (in a comparison, counted over all runs).
final class StopForTests {
    private let step: Int
    private let signal: Int32
    private var steps = 0

    init() {
        let parts = (ProcessInfo.processInfo.environment["PEFT_TEST_STOP"] ?? "").split(separator: ":")
        step = parts.first.flatMap { Int($0) } ?? 0
        signal = parts.count == 2 ? Int32(parts[1]) ?? SIGTERM : SIGTERM
    }

    func note(_ event: TrainingEvent) {
        if case .step(let progress) = event, progress.step == step { kill(getpid(), signal) }
    }

    func note(_ event: ComparisonEvent) {
        guard case .training = event else { return }
        steps += 1
        if steps == step { kill(getpid(), signal) }
    }
}
