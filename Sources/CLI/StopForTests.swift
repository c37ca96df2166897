import Experiments
import Foundation
import Training

/// Stops at a known step, so that tests of resuming need no timing: `PEFT_TEST_STOP=2:15` raises signal 15 after step 2
/// (in a comparison, counted over all runs); `2:9:1` kills rank 1 alone.
final class StopForTests {
    private let step: Int
    private let signal: Int32
    private var steps = 0

    init() {
        let variables = ProcessInfo.processInfo.environment
        let parts = (variables["PEFT_TEST_STOP"] ?? "").split(separator: ":").map(String.init)
        let isMeant = parts.count < 3 || parts[2] == variables["RANK"]
        step = isMeant ? parts.first.flatMap { Int($0) } ?? 0 : 0
        signal = parts.count >= 2 ? Int32(parts[1]) ?? SIGTERM : SIGTERM
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
