import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// AdaLoRA's schedule of ranks does here what it does in Hugging Face PEFT (`make_projection_fixtures.py`).
@Suite struct AdaLoRATests {
    @Test func ranksArePrunedAsInHuggingFace() throws {
        let folder = try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/schedules/adalora")
        let expected = try JSON.read(folder.appendingPathComponent("expected.json"))
        let base = try #require(expected["base"]?.string)
        let rows = expected.rows
        let adapter = try AdapterFolder(folder.appendingPathComponent("start"))
            .attach(to: Models.load(base), isTrainable: true)
        let hook = try #require(adapter.trainingHook())
        let optimizer = AdamW(adapter.parameters, weightDecay: 0.01)
        let rate = try #require(expected["rate"]?.double)
        let losses = try withTorchErrors {
            try hook.begin(totalSteps: 30) { false }
            return (1...30).map { step in
                let loss = adapter.model.loss([rows[step % 3], rows[(step + 1) % 3]])
                (loss + (hook.penalty() ?? .zeros([1]))).sum().backward()
                optimizer.update(learningRate: rate)
                hook.afterUpdate(step: step, totalSteps: 30)
                optimizer.clearGradients()
                return loss.item()
            }
        }
        #expect(relativeDifference(losses, (expected["losses"]?.array ?? []).compactMap(\.double)) < 1e-3)
        try withTemporaryFolder { saved in
            let own = saved.appendingPathComponent("end")
            try adapter.save(to: own, base: base)
            let theirs = try AdapterFolder(folder.appendingPathComponent("end"))
            #expect(try AdapterFolder(own).configuration["rank_pattern"] == theirs.configuration["rank_pattern"])
            // Both files hold what was kept, and compute the same.
            let a = try AdapterFolder(own).attach(to: Models.load(base)).model.scores(rows)
            let b = try theirs.attach(to: Models.load(base)).model.scores(rows)
            #expect(relativeDifference(a, b) < 1e-3)
            #expect(relativeDifference(a, try adapter.model.scores(rows)) < 1e-5)
        }
    }
}
