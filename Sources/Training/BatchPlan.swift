import PEFTSupport

/// The examples of each step: every epoch is a permutation of all examples by (seed, epoch), cut into micro-batches of
/// a fixed number of examples or a maximum number of tokens.
package struct BatchPlan {
    private let configuration: TrainingConfiguration
    /// Tokens of each example.
    private let lengths: [Int]
    package let totalSteps: Int
    /// The first step of each epoch, and the one after the last.
    private let starts: [Int]
    /// The micro-batches of the most recently used epoch.
    private var cached: (epoch: Int, microBatches: [[Int]]) = (-1, [])

    package init(_ configuration: TrainingConfiguration, _ rows: EncodedRows) {
        self.configuration = configuration
        let lengths = rows.lengths
        self.lengths = lengths
        guard configuration.tokensPerBatch != nil else {
            totalSteps = configuration.totalSteps(rows: rows.count)
            starts = [0, configuration.stepsPerEpoch(rows: rows.count)]
            return
        }
        // The number of micro-batches with a token budget differs between epochs.
        var starts = [0]
        var total = configuration.steps
        while (starts.last ?? 0) < total ?? .max {
            let epoch = starts.count - 1
            guard total != nil || Double(epoch) < configuration.epochs else { break }
            let microBatches = Self.microBatches(ofEpoch: epoch, configuration, lengths).count
            let steps = (microBatches + configuration.accumulation - 1) / configuration.accumulation
            starts.append((starts.last ?? 0) + steps)
            let part = configuration.epochs - Double(epoch)
            if configuration.steps == nil, part <= 1 {
                total = starts[epoch] + max(1, Int((part * Double(steps)).rounded(.up)))
            }
        }
        self.starts = starts
        totalSteps = total ?? starts.last ?? 0
    }

    /// Steps of the first epoch.
    var firstEpoch: Int { starts[1] }

    /// Indices of the examples of each micro-batch of a step.
    package mutating func microBatches(ofStep step: Int) -> [[Int]] {
        let (epoch, index) = place(of: step)
        if cached.epoch != epoch { cached = (epoch, Self.microBatches(ofEpoch: epoch, configuration, lengths)) }
        let first = index * configuration.accumulation
        return Array(cached.microBatches[first..<min(first + configuration.accumulation, cached.microBatches.count)])
    }

    /// Completed epochs after a number of steps.
    func epochs(after steps: Int) -> Double {
        let (epoch, index) = place(of: steps)
        let length =
            configuration.tokensPerBatch == nil || epoch + 1 >= starts.count
            ? starts[1] : starts[epoch + 1] - starts[epoch]
        return Double(epoch) + Double(index) / Double(length)
    }

    func isEpochsEnd(after steps: Int) -> Bool { place(of: steps).index == 0 }

    private func place(of step: Int) -> (epoch: Int, index: Int) {
        guard configuration.tokensPerBatch != nil else {
            return (step / starts[1], step % starts[1])
        }
        let epoch = max(0, (starts.lastIndex { $0 <= step } ?? 0))
        return (epoch, step - starts[epoch])
    }

    private static func microBatches(
        ofEpoch epoch: Int, _ configuration: TrainingConfiguration, _ lengths: [Int]
    ) -> [[Int]] {
        var random = SeededRandom(seed: configuration.seed, stream: UInt64(epoch))
        var rows = Array(lengths.indices)
        random.shuffle(&rows)
        var microBatches: [[Int]] = []
        var tokens = 0
        for row in rows {
            // An example longer than the budget is a micro-batch of its own.
            let isFull =
                if let budget = configuration.tokensPerBatch { tokens + lengths[row] > budget } else {
                    microBatches.last?.count == configuration.batchSize
                }
            if microBatches.isEmpty || isFull {
                microBatches.append([])
                tokens = 0
            }
            microBatches[microBatches.count - 1].append(row)
            tokens += lengths[row]
        }
        return microBatches
    }
}
