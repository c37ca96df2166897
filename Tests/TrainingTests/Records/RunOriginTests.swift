import Foundation
import PEFTSupport
import Testing
import Torch

@testable import Training

struct RunOriginTests {
    private let files = [
        RunOrigin.File(path: "a.jsonl", bytes: 3, sha256: "aa"),
        RunOrigin.File(path: "b.jsonl", bytes: 4, sha256: "bb"),
    ]
    private var origin: RunOrigin { RunOrigin(arguments: ["--steps=2"], folder: "/runs", files: files, device: .cpu) }

    @Test func changedFilesAreNamedOneByOne() {
        #expect(origin.changes(to: files).isEmpty)
        var changed = files
        changed[0].bytes = 5
        changed[1].sha256 = "cc"
        #expect(
            origin.changes(to: changed) == [
                "a.jsonl has changed: 3 bytes then, 5 now",
                "b.jsonl has changed: its SHA-256 was bb, and is cc",
            ])
        #expect(origin.changes(to: [files[1]]) == ["a.jsonl is missing"])
    }

    @Test func differencesOfTheMachineAreNamedOneByOne() {
        var now = origin
        #expect(now.environmentDifferences(from: origin).isEmpty && now.threads == Runtime.threads)
        (now.libtorch, now.processor, now.blas) = ("3.0", "Another", "None")
        (now.threads, now.device) = (origin.threads + 1, "cuda:0")
        #expect(
            now.environmentDifferences(from: origin) == [
                "libtorch: \(origin.libtorch) then, 3.0 now",
                "processor: \(origin.processor ?? "unknown") then, Another now",
                "matmuls: \(origin.blas) then, None now",
                "threads: \(origin.threads) then, \(origin.threads + 1) now", "device: cpu then, cuda:0 now",
            ])
    }

    @Test func inputsAreComparedByTheirDigests() {
        var (then, now) = (origin, origin)
        #expect(now.inputDifference(from: then) == nil)
        (then.base, now.base, then.examples, now.examples) = ("1", "1", "2", "3")
        #expect(now.inputDifference(from: then)?.contains("encoded examples") == true)
        now.base = "4"
        #expect(now.inputDifference(from: then) == "the base model has changed")
    }

    @Test func theFirstOtherLossIsNamed() {
        var (then, now) = (TrainingHistory(), TrainingHistory())
        then.training = [.init(step: 1, loss: 2), .init(step: 2, loss: 1.5)]
        now.training = then.training
        #expect(now.difference(from: then) == nil)
        now.training[1].loss = 1.25
        #expect(now.difference(from: then) == "training loss 1.5 at step 2 then, 1.25 at step 2 now")
        now.training.removeLast()
        #expect(now.difference(from: then) == "2 training losses then, 1 now")
    }

    /// Records without an origin are those of earlier versions.
    @Test func theOriginIsPartOfTheRecord() throws {
        let decoded = try JSONDecoder().decode(RunOrigin.self, from: JSONEncoder().encode(origin))
        #expect(decoded == origin)
        #expect(origin.libtorch.split(separator: ".").count == 3)
    }
}
