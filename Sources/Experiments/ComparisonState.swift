import Foundation
import LanguageModels
import PEFTSupport
import Training

/// Finished runs of a comparison or a sweep, in a folder beside its output, so that an interrupted one
/// can be resumed without repeating them.
package final class ComparisonState {
    /// Whether to start from scratch or to resume (`--resume`).
    package enum Start: Sendable {
        case fromScratch
        case resuming
    }

    package let folder: URL
    /// Keeps other runs from writing here. The lock file and an empty folder are removed with the last reference.
    package let lock: FolderLock?
    private var settings: [String: String]?

    private var settingsFile: URL { folder.appendingPathComponent("settings.json") }
    private var rateFile: URL { folder.appendingPathComponent("learning-rate.json") }
    /// The report so far, in the format of ``ComparisonReport/json()``.
    package var reportFile: URL { folder.appendingPathComponent("report.json") }

    /// - Parameter output: the file that the comparison writes at its end.
    /// - Throws: ``PEFTError`` if another process is writing here, or for an unfinished comparison that isn't resumed.
    package init(besides output: URL, _ start: Start) throws {
        let place = CheckpointFolder(of: output)
        folder = place.url
        lock = try place.lock()
        let isUnfinished = FileManager.default.fileExists(atPath: settingsFile.path)
        guard start == .resuming || !isUnfinished else {
            throw PEFTError(
                "there is an unfinished run in \(folder.path)", remedy: "continue it with --resume, or remove it")
        }
        for name in (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        where name.contains(".json.tmp-") {
            let file = String(name.prefix(upTo: name.range(of: ".tmp-")?.lowerBound ?? name.endIndex))
            AtomicFile.removeLeftovers(of: folder.appendingPathComponent(file))
        }
    }

    /// The state of another process, which holds the lock, for a process that runs one of its methods.
    package init(sharing output: URL) {
        folder = CheckpointFolder(of: output).url
        lock = nil
    }

    /// The state of another host's process, with copies of its files, for a process that runs some of its methods.
    package init(copying files: [String: Data], to folder: URL) throws {
        self.folder = folder
        lock = nil
        try add(files)
    }

    /// The state's files by name.
    package func files() throws -> [String: Data] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return try names.filter { $0.hasSuffix(".json") || $0.hasSuffix(".safetensors") }.reduce(into: [:]) {
            $0[$1] = try Data(contentsOf: folder.appendingPathComponent($1))
        }
    }

    /// Adds files of another process, or replaces them.
    package func add(_ files: [String: Data]) throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        // The settings first: without them there is nothing to resume.
        for (name, data) in files.sorted(by: { $0.key > $1.key }) {
            try AtomicFile.write(data, to: folder.appendingPathComponent((name as NSString).lastPathComponent))
        }
    }

    /// Removes the state of a process that was killed between writing its output and removing the state.
    package static func removeIfFinished(_ output: URL) {
        let place = CheckpointFolder(of: output)
        let report = place.url.appendingPathComponent("report.json")
        guard let written = try? Data(contentsOf: output), let known = try? Data(contentsOf: report),
            written == known, let lock = try? place.lock()
        else { return }
        withExtendedLifetime(lock) { try? FileManager.default.removeItem(at: place.url) }
    }

    package func remove() { try? FileManager.default.removeItem(at: folder) }

    /// Records the settings, and checks them against those of a stored state.
    /// - Throws: ``PEFTError`` naming the first setting that differs, with both values.
    func begin(_ settings: [String: String]) throws {
        // A sweep begins before its learning-rate search; afterwards the rate is one of the settings.
        guard self.settings == nil else { return }
        self.settings = settings
        guard FileManager.default.fileExists(atPath: settingsFile.path) else { return }
        guard let data = try? Data(contentsOf: settingsFile),
            let stored = try? JSONDecoder().decode([String: String].self, from: data)
        else {
            throw PEFTError("\(settingsFile.path) is damaged", remedy: "remove \(folder.path) to start from scratch")
        }
        let names = Set(settings.keys).union(stored.keys).sorted()
        guard let name = names.first(where: { settings[$0] != stored[$0] }) else { return }
        throw PEFTError(
            "the unfinished run in \(folder.path) used \(name) \(stored[name] ?? "none"), but this run uses "
                + (settings[name] ?? "none"),
            remedy: "use the same settings and data, or choose another output")
    }

    // MARK: Methods

    func progress(of index: Int) throws -> MethodProgress? { try read(file(of: index)) }

    func save(_ progress: MethodProgress, of index: Int) throws { try write(progress, to: file(of: index)) }

    /// Saves the report so far, for `peft compare --from`.
    package func save(_ report: Data) throws { try AtomicFile.write(report, to: reportFile) }

    /// The learning rate that was searched once for all values of a sweep.
    func learningRate() throws -> Double? {
        let value: [Double]? = try read(rateFile)
        return value?.first
    }

    func save(learningRate: Double) throws { try write([learningRate], to: rateFile) }

    /// The rounds of an elimination so far.
    func elimination() throws -> Elimination? { try read(file("elimination.json")) }

    func save(_ elimination: Elimination) throws { try write(elimination, to: file("elimination.json")) }

    /// A further file of a sweep.
    func file(_ name: String) -> URL { folder.appendingPathComponent(name) }

    private func file(of index: Int) -> URL { file("method-\(index + 1).json") }

    private func read<Value: Decodable>(_ file: URL) throws -> Value? {
        guard FileManager.default.fileExists(atPath: file.path) else { return nil }
        let decoder = JSONDecoder()
        decoder.nonConformingFloatDecodingStrategy = .convertFromString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        guard let data = try? Data(contentsOf: file), let value = try? decoder.decode(Value.self, from: data) else {
            throw PEFTError("\(file.path) is damaged", remedy: "remove it to run that method again")
        }
        return value
    }

    private func write(_ value: some Encodable, to file: URL) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        // A folder without settings has nothing to resume.
        if let settings, !FileManager.default.fileExists(atPath: settingsFile.path) {
            try AtomicFile.write(encoder.encode(settings), to: settingsFile)
        }
        try AtomicFile.write(encoder.encode(value), to: file)
    }
}

/// The finished part of one method's runs.
struct MethodProgress: Codable {
    /// Results of the first seed: sizes, inference, samples.
    var run: MethodRun
    var seeds: [SeedOutcome] = []
    var stored = PostQuantization()
    /// Why the method was skipped.
    var failure: String?

    init(_ run: MethodRun) { self.run = run }

    /// The entry of the report, with the results over all seeds.
    func finished() -> MethodRun {
        var run = run
        run.quality = Comparison.statistics(seeds.map { $0.metrics.mapValues(\.metric) })
        run.loss = Statistic(seeds.map(\.loss.metric))
        let (speeds, durations) = (seeds.compactMap(\.tokensPerSecond), seeds.compactMap(\.seconds))
        if !speeds.isEmpty {
            (run.speed, run.tokensPerSecond) = (Statistic(speeds), median(speeds))
            run.trainingSeconds = median(durations)
        }
        let peaks = seeds.compactMap { $0.peakBytes.map(Double.init) }
        if !peaks.isEmpty { run.memory = Statistic(peaks) }
        let forgetting = seeds.compactMap(\.retention)
        if let first = forgetting.first {
            run.retention = .init(text: first.text, before: first.before, after: Statistic(forgetting.map(\.after)))
        }
        return run
    }
}

/// The results of one seed.
struct SeedOutcome: Codable {
    var metrics: [String: DrawnMetric]
    var loss: DrawnMetric
    /// Training throughput; `nil` for a base model.
    var tokensPerSecond: Double?
    var seconds: Double?
    var peakBytes: Int?
    var retention: RetentionResult?

    init(_ evaluation: EvaluationResult, loss: MetricValue) {
        metrics = evaluation.metrics.mapValues { DrawnMetric($0) }
        self.loss = DrawnMetric(loss)
    }
}

/// A metric with its bootstrap resamples, which ``MetricValue`` leaves out of its coded form.
struct DrawnMetric: Codable {
    private let value: Double
    private let low: Double
    private let high: Double
    private let draws: [Double]

    init(_ metric: MetricValue) {
        (value, low, high, draws) = (metric.value, metric.low, metric.high, metric.resampled)
    }

    var metric: MetricValue { MetricValue(value: value, low: low, high: high, resampled: draws) }
}
