import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import TestSupport
import Testing
import Training

@testable import Experiments
@testable import Torch

/// Sizes on the heap are worked out by hand: a block of b bytes takes b + 80 rounded up to a multiple of 16.
@Suite struct HeapModelTests {
    @Test(arguments: [(1, 96), (16, 96), (17, 112), (32, 112), (33, 128), (1000, 1088)])
    func blocksTakeRoomForHeaderAndAlignment(bytes: Int, size: Int) {
        var heap = HeapModel()
        heap.make(1, bytes: bytes)
        #expect(heap.top == size)
    }

    @Test func theSmallestFreeBlockThatFitsIsSplit() {
        var heap = HeapModel()
        // Blocks of 192, 144 and 288 bytes, each below one of 96 that stays.
        for (index, bytes) in [100, 60, 200].enumerated() {
            heap.make(10 + index, bytes: bytes)
            heap.make(20 + index, bytes: 1)
        }
        #expect(heap.top == 192 + 144 + 288 + 3 * 96)
        for index in 0..<3 { heap.free(10 + index) }
        // 144 bytes have a block of their size, and so have the first 192; the second take 192 of the 288.
        for (block, bytes) in [(1, 60), (2, 100), (3, 100)] { heap.make(block, bytes: bytes) }
        #expect(heap.top == 912)
        // The remaining 96 are the last that are free.
        heap.make(4, bytes: 1)
        #expect(heap.top == 912)
        heap.make(5, bytes: 1)
        #expect(heap.top == 912 + 96)
    }

    @Test(arguments: [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]])
    func adjacentFreeBlocksAreOne(order: [Int]) {
        var heap = HeapModel()
        for block in 1...4 { heap.make(block, bytes: 1) }
        for block in order { heap.free(block) }
        // Three blocks of 96 bytes hold one of 208 + 80.
        heap.make(5, bytes: 208)
        #expect(heap.top == 4 * 96)
        heap.make(6, bytes: 1)
        #expect(heap.top == 5 * 96)
    }

    @Test func aFreeBlockAtTheTopGrows() {
        var heap = HeapModel()
        heap.make(1, bytes: 1)
        heap.make(2, bytes: 1)
        heap.free(2)
        heap.make(3, bytes: 100)
        #expect(heap.top == 96 + 192)
        heap.free(3)
        heap.free(1)
        heap.make(4, bytes: 1000)
        #expect(heap.top == 1088)
    }

    @Test func unknownBlocksAreIgnored() {
        var heap = HeapModel()
        heap.free(7)
        heap.make(1, bytes: 1)
        heap.free(1)
        heap.free(1)
        heap.make(2, bytes: 1)
        heap.make(3, bytes: 1)
        #expect(heap.top == 2 * 96)
    }
}

@Suite struct MemoryLedgerTests {
    /// Weights and optimizer states, then the same step several times.
    private static func log(steps: Int) -> MemoryLog {
        var events: [MemoryLog.Event] = [.made(block: 1, bytes: 1000), .made(block: 2, bytes: 200)]
        var marks = [(name: MemoryLedger.Mark.optimizer, place: 1)]
        for step in 0..<steps {
            let (start, block) = (events.count, 10 * (step + 1))
            events += [
                // Forward: an activation, a temporary tensor, a chunk of logits.
                .made(block: block, bytes: 300), .made(block: block + 1, bytes: 50), .freed(block: block + 1),
                .logits(begin: true), .made(block: block + 2, bytes: 400), .logits(begin: false),
                // Backward: a gradient, a temporary tensor.
                .made(block: block + 3, bytes: 100), .made(block: block + 4, bytes: 30), .freed(block: block + 4),
                .freed(block: block + 2), .freed(block: block),
                // Update.
                .made(block: block + 5, bytes: 10), .freed(block: block + 5), .freed(block: block + 3),
            ]
            marks += [
                (MemoryLedger.Mark.forward, start), (MemoryLedger.Mark.backward, start + 6),
                (MemoryLedger.Mark.update, start + 11),
            ]
        }
        return MemoryLog(events: events, marks: marks)
    }

    @Test func thePeakIsCountedByUse() {
        let ledger = MemoryLedger(Self.log(steps: 1))
        #expect(ledger.weights == 1000 && ledger.optimizerStates == 200)
        #expect(ledger.activations == 300 && ledger.logits == 400)
        #expect(ledger.gradients == 100 && ledger.temporaries == 30)
        // On the heap 1000, 200 and 300 bytes take 1088 + 288 + 384. The temporary tensor's 144 bytes are free again
        // when 480 are needed, and grow to them; 192 and 112 follow.
        let top = 1088 + 288 + 384 + 480 + 192 + 112
        #expect(ledger.allocator == top - 2030)
        #expect(ledger.baseline == 0 && ledger.total == top)
        #expect(ledger.largest.name == "weights")
    }

    /// The blocks that a step frees are those that the next one needs.
    @Test func furtherStepsReuseFreedBlocks() {
        #expect(MemoryLedger(Self.log(steps: 4)) == MemoryLedger(Self.log(steps: 1)))
    }

    @Test func aPeakInTheForwardPassHasNoGradients() {
        let log = MemoryLog(
            events: [
                .made(block: 1, bytes: 500), .made(block: 2, bytes: 700), .freed(block: 2),
                .made(block: 3, bytes: 600), .freed(block: 1), .freed(block: 3),
            ],
            marks: [
                (MemoryLedger.Mark.forward, 0), (MemoryLedger.Mark.backward, 3), (MemoryLedger.Mark.update, 5),
            ])
        let ledger = MemoryLedger(log)
        // 1200 bytes before the backward pass, 1100 in it.
        #expect(ledger.activations == 500 && ledger.temporaries == 700)
        #expect(ledger.weights == 0 && ledger.gradients == 0 && ledger.logits == 0)
        // 592 and 784 bytes; the latter are split for the 688 of the backward pass.
        #expect(ledger.total == 592 + 784)
    }

    /// What is never freed is alive to the end.
    @Test func blocksWithoutAnEndStay() {
        let log = MemoryLog(
            events: [.made(block: 1, bytes: 100), .made(block: 2, bytes: 40), .made(block: 3, bytes: 20)],
            marks: [(MemoryLedger.Mark.forward, 0), (MemoryLedger.Mark.backward, 1), (MemoryLedger.Mark.update, 2)])
        let ledger = MemoryLedger(log)
        #expect(ledger.activations == 100 && ledger.gradients == 40 && ledger.temporaries == 20)
    }

    @Test func anEmptyLogNeedsNothing() {
        #expect(MemoryLedger(MemoryLog()) == MemoryLedger())
        #expect(MemoryLedger().total == 0)
        // A block from before the log, freed in it.
        #expect(MemoryLedger(MemoryLog(events: [.freed(block: 3)], marks: [])) == MemoryLedger())
    }

    @Test func entriesAreTheTermsOfTheTotal() {
        var ledger = MemoryLedger()
        (ledger.weights, ledger.gradients, ledger.optimizerStates, ledger.activations) = (1, 2, 4, 8)
        (ledger.logits, ledger.temporaries, ledger.allocator, ledger.baseline) = (16, 32, 64, 128)
        #expect(ledger.total == 255)
        #expect(ledger.entries.map(\.bytes) == [1, 2, 4, 8, 16, 32, 64, 128])
        #expect(ledger.largest.name == "baseline" && ledger.largest.title == "process")
    }

    /// Tensors on the meta device are logged with their bytes, from allocation to release.
    @Test func tensorsAreLogged() throws {
        let log = try MemoryLog.record { mark in
            var first: Tensor? = .empty([16], device: .meta)
            mark("between")
            let second = Tensor.empty([3, 5], dtype: .float64, device: .meta)
            withExtendedLifetime(first) {}
            first = nil
            withExtendedLifetime(second) {}
        }
        let made = log.events.compactMap { event -> (block: Int, bytes: Int)? in
            if case .made(let block, let bytes) = event { (block, bytes) } else { nil }
        }
        #expect(made.map(\.bytes) == [64, 120])
        let freed = log.events.compactMap { event -> Int? in if case .freed(let block) = event { block } else { nil }
        }
        // Blocks of earlier logs may be released meanwhile by other threads.
        #expect(made.map(\.block).allSatisfy { block in freed.count { $0 == block } == 1 })
        #expect(log.marks.map(\.name) == ["between"])
        let place = try #require(log.marks.first).place
        let before = log.events.prefix(place).compactMap { event -> Int? in
            if case .made(_, let bytes) = event { bytes } else { nil }
        }
        #expect(before == [64])
    }

    /// The activations of a micro-batch are the same ones if gradients of an earlier micro-batch wait beside them.
    @Test func activationsOfFurtherMicroBatchesAreActivations() throws {
        let configuration = try JSON.read(Checkout.model("llama/config.json"))
        let base = PlannedBase(fileBytes: 0, usedVocabulary: nil) {
            try ModelRegistry.outline(configuration, file: "config.json")
        }
        let plans = try [1, 2].map { accumulation in
            var configuration = TrainingConfiguration()
            configuration.accumulation = accumulation
            return try TrainingPlan(
                MethodChoice(LoRA.self), on: base, batch: PlannedBatch(rows: 8, prompt: 60, target: 20),
                configuration: configuration, baseline: 0
            ).memory
        }
        #expect(plans[0].activations > 0)
        #expect(plans[1].activations >= plans[0].activations)
    }
}
