import Foundation
import PEFTSupport
import Testing

@testable import Training

@Suite struct BatchPlanTests {
    private func rows(_ lengths: [Int]) -> [EncodedExample] {
        lengths.map { EncodedExample(input: Array(repeating: 5, count: $0 - 1), target: [1]) }
    }

    private let lengths = [3, 9, 4, 12, 2, 7, 5, 30, 6, 8, 3]

    @Test func tokensFillABatch() {
        var settings = TrainingConfiguration()
        (settings.tokensPerBatch, settings.epochs) = (16, 3)
        var plan = BatchPlan(settings, EncodedRows(rows(lengths)))
        var orders: [[Int]] = []
        var step = 0
        for epoch in 0..<3 {
            var order: [Int] = []
            repeat {
                let microBatches = plan.microBatches(ofStep: step)
                #expect(microBatches.count == 1)
                let tokens = microBatches[0].reduce(0) { $0 + lengths[$1] }
                #expect(tokens <= 16 || microBatches[0].count == 1)
                order += microBatches[0]
                step += 1
            } while !plan.isEpochsEnd(after: step)
            #expect(order.sorted() == Array(lengths.indices))
            #expect(abs(plan.epochs(after: step) - Double(epoch + 1)) < 1e-9)
            orders.append(order)
        }
        #expect(plan.totalSteps == step && Set(orders).count == 3)
    }

    @Test func stepsAndPartsOfEpochs() {
        var settings = TrainingConfiguration()
        (settings.tokensPerBatch, settings.epochs, settings.accumulation) = (16, 0.5, 2)
        let half = BatchPlan(settings, EncodedRows(rows(lengths))).totalSteps
        settings.epochs = 1
        let whole = BatchPlan(settings, EncodedRows(rows(lengths))).totalSteps
        #expect(half == (whole + 1) / 2)
        settings.steps = 41
        var plan = BatchPlan(settings, EncodedRows(rows(lengths)))
        #expect(plan.totalSteps == 41)
        for step in 0..<41 { #expect((1...2).contains(plan.microBatches(ofStep: step).count)) }
    }

    @Test func rowsFillABatch() {
        var settings = TrainingConfiguration()
        (settings.batchSize, settings.accumulation, settings.epochs) = (3, 2, 2)
        var plan = BatchPlan(settings, EncodedRows(rows(lengths)))
        #expect(plan.totalSteps == 4 && plan.firstEpoch == 2)
        #expect(
            plan.microBatches(ofStep: 0).map(\.count) == [3, 3]
                && plan.microBatches(ofStep: 1).map(\.count) == [3, 2])
        let second = plan.microBatches(ofStep: 2) + plan.microBatches(ofStep: 3)
        #expect(second.joined().sorted() == Array(lengths.indices))
        #expect(plan.isEpochsEnd(after: 2) && !plan.isEpochsEnd(after: 3) && plan.epochs(after: 3) == 1.5)
    }
}
