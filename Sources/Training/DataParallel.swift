import Foundation
import LanguageModels
import PEFT
import PEFTDistributed
import PEFTSupport
import Torch
import TorchNN

/// Data-parallel training: the processes of a job share the examples of each optimizer step, which are those of a run in
/// one process, and sum their gradients. So a run doesn't depend on their number, within rounding.
final class DataParallel {
    let job: DistributedJob
    private var buckets: (sums: GradientBuckets, tensors: [Tensor])?
    /// Whether each micro-batch is computed by one process; see ``chooseDivision(_:_:_:forward:)``.
    private var keepsMicroBatches = false
    private var hasChosen = false

    init(_ job: DistributedJob) { self.job = job }

    var isFirst: Bool { job.isFirst }

    /// The part of a step that this process computes.
    struct Share {
        /// A micro-batch, or a part of one, with its index in the step.
        struct Part {
            var index: Int
            var batch: TrainingBatch
            /// Whether it only takes part in gathering weights, while other processes compute.
            var isIdle = false
        }

        var batches: [Part] = []
        /// Of all processes.
        var targets = 0
        var tokens = 0
    }

    // MARK: Preparing

    /// Compares settings, data and base model with those of rank 0.
    /// - Throws: ``PEFTError`` naming the first difference.
    func requireAgreement(_ fingerprint: RunFingerprint) throws {
        try job.requireAgreement(on: "run", JSONEncoder().encode(fingerprint)) { first in
            guard let first = try? JSONDecoder().decode(RunFingerprint.self, from: first) else {
                return "another version"
            }
            return fingerprint.difference(from: first)
        }
    }

    /// Gives all processes the trained parameters of rank 0, whose initial values may differ in rounding.
    func begin(_ parameters: [Parameter]) throws {
        let shapes = parameters.map { "\($0.tensor.shape)" }.joined(separator: " ")
        try job.requireAgreement(on: "parameters", Data(shapes.utf8)) {
            $0 == Data(shapes.utf8) ? nil : "parameters of other shapes"
        }
        for parameter in parameters { try job.group.broadcast(parameter.tensor) }
    }

    /// Decides before the first step whether micro-batches may be divided.
    /// - Parameter forward: a training step's forward pass, to see whether it draws random masks.
    /// - Throws: ``PEFTError`` if a step would leave processes without work.
    func chooseDivision(
        _ model: any LanguageModel, _ configuration: TrainingConfiguration, _ example: EncodedExample,
        forward: (TrainingBatch) -> Void
    ) throws {
        guard !hasChosen else { return }
        hasChosen = true
        let reason = try withTorchErrors { () -> String? in
            let batch = model.batch([example])
            if let reason = model.interaction(in: batch) { return reason }
            let draws = DropoutScope.draws { forward(batch) }
            return draws ? "dropout masks are functions of a token's position in its micro-batch" : nil
        }
        guard let reason else { return }
        guard configuration.accumulation >= job.size else {
            throw PEFTError(
                "\(reason), so \(counted(configuration.accumulation, "micro-batch", plural: "micro-batches")) per step can't be divided among \(job.size) processes",
                remedy: Self.remedy(configuration, job.size))
        }
        keepsMicroBatches = true
    }

    private static func remedy(_ configuration: TrainingConfiguration, _ size: Int) -> String {
        guard configuration.tokensPerBatch == nil else { return "use --accumulate \(size)" }
        let examples = configuration.batchSize * configuration.accumulation
        let batch = max(1, examples / size)
        return "use --accumulate \(size) --batch-size \(batch) (\(batch * size) examples per step)"
    }

    // MARK: Steps

    /// Called before each step, as a method may replace the tensors of its parameters.
    func beginStep(_ parameters: [Parameter]) throws {
        let tensors = parameters.map(\.tensor)
        if let buckets, buckets.tensors.elementsEqual(tensors, by: ===) { return }
        // The hooks of the old buckets go first.
        buckets = nil
        buckets = (try GradientBuckets(tensors, job.group), tensors)
    }

    /// Examples of a step's micro-batches that this process computes, and those that only count.
    /// - Parameter gathering: whether weights are gathered in each pass, so that all processes need equally many.
    func share(
        of microBatches: [[Int]], gathering: Bool, _ lengths: (Int) -> Int, _ batch: ([Int]) -> TrainingBatch
    ) -> Share {
        var share = Share()
        let isWhole = keepsMicroBatches || microBatches.count % job.size == 0
        for (index, rows) in microBatches.enumerated() {
            // Every process needs the number of targets, by which the loss is divided.
            let whole = batch(rows)
            share.targets += whole.targetCount
            share.tokens += whole.tokenCount
            if isWhole {
                if index % job.size == job.rank { share.batches.append(.init(index: index, batch: whole)) }
                let isMissing = index == microBatches.count - 1 && job.rank > index % job.size
                if gathering, isMissing { share.batches.append(.init(index: index, batch: whole, isIdle: true)) }
                continue
            }
            let own = Self.division(rows, among: job.size, lengths)[job.rank]
            if !own.isEmpty || gathering {
                let shortest = rows.min { lengths($0) < lengths($1) }.map { [$0] } ?? []
                share.batches.append(
                    .init(index: index, batch: batch(own.isEmpty ? shortest : own), isIdle: own.isEmpty))
            }
        }
        return share
    }

    /// Divides examples so that all parts have about as many tokens: each example, the longest first, joins the smallest
    /// part. Within a part the order is that of `rows`.
    static func division(_ rows: [Int], among count: Int, _ lengths: (Int) -> Int) -> [[Int]] {
        var parts = [[Int]](repeating: [], count: count)
        var tokens = [Int](repeating: 0, count: count)
        let order = rows.indices.sorted { (lengths(rows[$0]), $1) > (lengths(rows[$1]), $0) }
        for place in order {
            let part = tokens.indices.min { (tokens[$0], $0) < (tokens[$1], $1) } ?? 0
            parts[part].append(place)
            tokens[part] += lengths(rows[place])
        }
        return parts.map { $0.sorted().map { rows[$0] } }
    }

    /// Called before the last backward pass of a step.
    func beginLastBackward() { buckets?.sums.beginSending() }

    /// Sums gradients and loss over all processes, and tells whether one of them asks to stop.
    func finishStep(loss: Double, stops: Bool) throws -> (loss: Double, stops: Bool) {
        let sums = try buckets?.sums.finish([loss, stops ? 1 : 0]) ?? []
        guard sums.count == 2 else { throw PEFTError("the gradients were not summed") }
        return (sums[0], sums[1] > 0)
    }

    // MARK: Validation and checkpoints

    /// The mean loss of validation examples, of whose batches each process computes some; `nil` if one asks to stop.
    func meanLoss(
        _ model: any LanguageModel, _ examples: [EncodedExample], batchSize: Int, isStopping: () -> Bool
    ) throws -> Double? {
        // If weights are gathered in each pass, all processes have equally many, to the end.
        let isPartitioned = model.partitionedBase != nil
        let batches = (examples.count + batchSize - 1) / batchSize
        let isIdle = isPartitioned && batches % job.size > 0 && job.rank >= batches % job.size
        let part = try model.lossSum(
            of: examples, batchSize: batchSize, isStopping: isPartitioned ? { false } : isStopping,
            idlePasses: isIdle ? 1 : 0
        ) { $0 % job.size == job.rank }
        let sums = try job.group.sum([part?.sum ?? 0, Double(part?.targets ?? 0), part == nil ? 1 : 0])
        guard sums.count == 3, sums[2] == 0 else { return nil }
        return sums[0] / max(1, sums[1])
    }

    /// Copies rank 0's newest checkpoint, if there is one, to a folder of this process's own.
    /// - Returns: `nil` if there is none; rank 0's own folder there.
    func sharedCheckpoint(_ folder: URL?) throws -> (folder: URL, isCopy: TemporaryFolder?)? {
        let newest = folder.map { CheckpointStore.newest(in: $0) }
        let names = newest.flatMap { try? FileManager.default.contentsOfDirectory(atPath: $0.path).sorted() } ?? []
        let list = try job.group.broadcast(JSONEncoder().encode(isFirst ? names : []))
        let shared = try JSONDecoder().decode([String].self, from: list)
        guard !shared.isEmpty else { return nil }
        let copy = isFirst ? nil : try TemporaryFolder()
        for name in shared {
            let own =
                isFirst
                ? try newest.map { try Data(contentsOf: $0.appendingPathComponent(name), options: .alwaysMapped) }
                : nil
            let data = try job.group.broadcast(own ?? Data())
            guard let copy else { continue }
            let target = CheckpointStore.newest(in: copy.url)
            try FileManager.default.createDirectory(at: target, withIntermediateDirectories: true)
            try AtomicFile.write(data, to: target.appendingPathComponent((name as NSString).lastPathComponent))
        }
        guard let url = copy?.url ?? folder else { return nil }
        return (url, copy)
    }
}
