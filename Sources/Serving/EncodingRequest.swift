import Foundation
import LanguageModels
import Torch

/// A request for the outputs of a model with a head: scores of labels, or embeddings.
package struct EncodingRequest: Sendable {
    /// The tokenized texts.
    package var rows: [TrainingRow]
    /// Name of the adapter; `nil` for the base model.
    package var adapter: String?
    /// When the request fails if it isn't complete.
    package var deadline: ContinuousClock.Instant?
    /// Whose request it is: clients take turns.
    package var client = ""

    package init(_ rows: [TrainingRow], adapter: String? = nil) { (self.rows, self.adapter) = (rows, adapter) }
}

/// An ``EncodingRequest`` in the engine.
final class EncodingJob {
    let id: Int
    let request: EncodingRequest
    let submitted = ContinuousClock.now
    private let continuation: CheckedContinuation<[[Float]], any Error>
    var adapter: LoadedAdapter?
    /// The outputs of the first texts.
    var outputs: [[Float]] = []

    init(id: Int, _ request: EncodingRequest, _ continuation: CheckedContinuation<[[Float]], any Error>) {
        (self.id, self.request, self.continuation) = (id, request, continuation)
    }

    var isComplete: Bool { outputs.count == request.rows.count }

    func end(_ result: Result<[[Float]], any Error>) { continuation.resume(with: result) }
}

/// The running requests for outputs of a model with a head. Their texts share batches, in turn by request. Belongs to the
/// engine's thread.
final class EncodingBatch {
    private let model: any LanguageModel
    private let store: AdapterStore
    /// Maximum number of tokens of a batch, unless one text has more.
    private let limit: Int
    private var running: [EncodingJob] = []
    /// Called with the reason when a request ends: `stop`, `abort`, `error`.
    var onEnd: (String) -> Void = { _ in }

    init(_ model: any LanguageModel, _ store: AdapterStore, limit: Int) {
        (self.model, self.store, self.limit) = (model, store, limit)
    }

    var count: Int { running.count }
    var isIdle: Bool { running.isEmpty }

    func start(_ job: EncodingJob) -> Turn {
        do {
            if let name = job.request.adapter {
                switch try store.use(name) {
                case .ready(let adapter):
                    job.adapter = adapter
                    adapter.running += 1
                    store.countRequest(name)
                case .wait: return .waits
                case .read(let folder, let version): return .reads(folder, version: version)
                }
            }
            running.append(job)
        } catch { end(job, ServingError(.failed, error)) }
        return .taken
    }

    /// Ends and removes requests; `error` says why.
    func end(_ error: (EncodingJob) -> (any Error)?) {
        running.removeAll { job in
            guard let error = error(job) else { return false }
            finish(job, .failure(error))
            return true
        }
    }

    /// Ends a request that hasn't started.
    func end(_ job: EncodingJob, _ error: any Error) { finish(job, .failure(error)) }

    private func finish(_ job: EncodingJob, _ result: Result<[[Float]], any Error>) {
        if let adapter = job.adapter { store.release(adapter) }
        job.adapter = nil
        switch result {
        case .success: onEnd("stop")
        case .failure(let error): onEnd(error is CancellationError ? "abort" : "error")
        }
        job.end(result)
    }

    /// Computes one batch of texts: those of adapters that share one, or of one adapter.
    /// - Returns: the number of tokens, and the requests that are complete.
    func step() -> (tokens: Int, complete: [EncodingJob]) {
        guard let first = running.first else { return (0, []) }
        let own = first.adapter.flatMap { $0.isExclusive ? $0 : nil }
        let jobs = running.filter { $0.adapter?.isExclusive ?? false ? $0.adapter === own : own == nil }
        var parts: [(job: EncodingJob, row: TrainingRow)] = []
        var tokens = 0
        var depth = 0
        // The next text of each request, then the ones after those.
        gathering: while true {
            var isEmpty = true
            for job in jobs where job.outputs.count + depth < job.request.rows.count {
                let row = job.request.rows[job.outputs.count + depth]
                if !parts.isEmpty, tokens + row.input.count > limit { break gathering }
                parts.append((job, row))
                tokens += row.input.count
                isEmpty = false
            }
            guard !isEmpty else { break }
            depth += 1
        }
        // Texts of one adapter are neighbors, so that its projections are computed together.
        let places = parts.indices.sorted {
            (parts[$0].job.adapter?.key ?? "", $0) < (parts[$1].job.adapter?.key ?? "", $1)
        }
        do {
            let rows = places.map { parts[$0].row }
            let outputs: [[Float]]
            if let own {
                outputs = try store.running(exclusively: own.key) { try compute(rows) }
            } else {
                outputs = try store.batch.run(places.map { parts[$0].job.adapter?.key }) { try compute(rows) }
            }
            var ordered = [[Float]](repeating: [], count: parts.count)
            for (place, output) in zip(places, outputs) { ordered[place] = output }
            for (part, output) in zip(parts, ordered) { part.job.outputs.append(output) }
            for job in jobs where job.outputs.contains(where: { !$0.allSatisfy(\.isFinite) }) {
                fail(
                    job,
                    ServingError(.failed, "the model's outputs are NaN or infinite; check the adapter and the model"))
            }
        } catch {
            let failed = Set(parts.map { ObjectIdentifier($0.job) })
            for job in jobs where failed.contains(ObjectIdentifier(job)) { fail(job, ServingError(.failed, error)) }
        }
        let complete = running.filter(\.isComplete)
        running.removeAll(where: \.isComplete)
        for job in complete { finish(job, .success(job.outputs)) }
        // Requests of other adapters come first next time.
        let served = Set(jobs.map { ObjectIdentifier($0) })
        running =
            running.filter { !served.contains(ObjectIdentifier($0)) }
            + running.filter { served.contains(ObjectIdentifier($0)) }
        return (tokens, complete)
    }

    private func fail(_ job: EncodingJob, _ error: ServingError) { end { $0 === job ? error : nil } }

    /// The outputs of each text: scores of the labels, for token classification of each labeled token after another, or an
    /// embedding.
    private func compute(_ rows: [TrainingRow]) throws -> [[Float]] {
        let values: [Float] = try withTorchErrors {
            let outputs = withoutGradients {
                model.computing { model.logits(model.batch(rows, device: model.device)) }.to(.float32)
            }
            return outputs.array(Float.self)
        }
        let counts = rows.map { model.head.task == .tokenClassification ? $0.target.count { $0 >= 0 } : 1 }
        let total = counts.reduce(0, +)
        guard total > 0, values.count.isMultiple(of: total) else {
            throw ServingError(.failed, "the model has \(values.count) outputs for \(total) places")
        }
        let size = values.count / total
        var start = 0
        return counts.map { count in
            defer { start += count * size }
            return Array(values[start..<(start + count * size)])
        }
    }
}
