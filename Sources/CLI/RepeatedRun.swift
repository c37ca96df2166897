import Foundation
import PEFTHub
import PEFTSupport
import Torch
import Training

/// `train --again`: a run whose options, data and base are those of an earlier one.
struct RepeatedRun {
    /// Options that a repetition may have: none changes what is computed, but for the number of threads, with a warning.
    private static let allowed: Set = ["again", "output", "quiet", "json", "no-log", "log-dir", "threads", "resume"]
    /// The options of the `train` command that this process runs, as its record stores them.
    nonisolated(unsafe) private(set) static var arguments: [String] = []

    let path: String
    private let folder: URL
    private let record: TrainingRecord
    private let origin: RunOrigin

    /// - Throws: ``PEFTError`` if the folder doesn't say how its run was started.
    init(_ path: String) throws {
        (self.path, folder) = (path, Output.url(path))
        guard let record = try TrainingRecord.read(in: folder) else {
            throw PEFTError(
                "\(path) has no \(TrainingRecord.fileName)", remedy: "name the output folder of a training run")
        }
        guard let origin = record.origin else {
            throw PEFTError(
                "\(path) doesn't say how its run was started, as version \(record.version) didn't record it",
                remedy: "start a new run with the settings in its \(TrainingRecord.fileName)")
        }
        (self.record, self.origin) = (record, origin)
    }

    // MARK: The command line

    /// Puts the options of the repeated run in place of `--again`, and notes the options for the record.
    /// - Throws: ``UsageError`` for an option that a repetition can't have.
    static func expand(_ given: [GivenArgument], _ table: OptionTable) throws -> [GivenArgument] {
        let all = try expanded(given, table)
        arguments = all.filter { !allowed.contains($0.key ?? "") && $0.key != "show-batch" }.map(\.word)
        return all
    }

    private static func expanded(_ given: [GivenArgument], _ table: OptionTable) throws -> [GivenArgument] {
        var path: String?
        for case .option(let option, _, let value?) in given where option.key == "again" { path = value }
        guard let path else { return given }
        if let other = given.first(where: { !allowed.contains($0.key ?? "") }) {
            throw UsageError("--again repeats a run as it was, without \(other.word)", remedy: "omit one of the two")
        }
        let origin = try RepeatedRun(path).origin
        var result = try table.split(origin.arguments)
        if !given.contains(where: { $0.key == "threads" }), let threads = table["--threads"] {
            result.append(.option(threads, name: "--threads", value: "\(origin.threads)"))
        }
        // The run works in the folder of the repeated one, so that relative paths of data mean the same.
        return result
            + given.map { (argument: GivenArgument) -> GivenArgument in
                guard case .option(let option, let name, let value?) = argument,
                    ["again", "output", "log-dir"].contains(option.key)
                else { return argument }
                return .option(option, name: name, value: Output.url(value).path)
            }
    }

    // MARK: Before the run

    /// Changes to the folder in which the repeated run was started, and compares its files.
    /// - Throws: ``PEFTError`` if a file is missing or has changed, after a line for each.
    func begin() throws {
        if !FileManager.default.changeCurrentDirectoryPath(origin.folder) {
            Console.warn("\(origin.folder), where \(path) was started, is missing; relative paths begin here")
        }
        let changes = origin.changes(to: try origin.files.compactMap { try Self.file($0.path) })
        guard !changes.isEmpty else { return }
        for change in changes.dropLast() { Console.warn(change) }
        throw PEFTError(
            "\(path) can't be repeated: \(changes.last ?? "")",
            remedy: "restore \(changes.count == 1 ? "it" : "them"), or start a new run")
    }

    /// Warns of differences that may change the result.
    /// - Throws: ``PEFTError`` if the base model or the examples differ.
    func compare(_ now: RunOrigin, processes: Int?) throws {
        if let difference = now.inputDifference(from: origin) {
            throw PEFTError("\(path) can't be repeated: \(difference)", remedy: "restore it, or start a new run")
        }
        var lines = now.environmentDifferences(from: origin)
        if record.version != Version.current {
            lines.append(RunOrigin.line("version", record.version, Version.current))
        }
        if record.processes != processes {
            lines.append(RunOrigin.line("processes", "\(record.processes ?? 1)", "\(processes ?? 1)"))
        }
        for line in lines { Console.warn("the result may differ from that of \(path): \(line)") }
    }

    // MARK: After the run

    /// Says whether the losses and the weights are the same.
    func report(_ history: TrainingHistory, _ output: URL, isQuiet: Bool) throws {
        if let difference = try history.difference(from: record.history) ?? weightDifference(output) {
            Console.warn("the result differs from that of \(path): \(difference)")
        } else if !isQuiet {
            Console.note("losses and weights are those of \(path), bit for bit")
        }
    }

    private func weightDifference(_ output: URL) throws -> String? {
        for name in try FileManager.default.contentsOfDirectory(atPath: output.path).sorted()
        where name.hasSuffix(".safetensors") {
            let files = try [folder, output].map { try Self.file($0.appendingPathComponent(name).path) }
            guard let then = files[0] else { return "\(path) has no \(name)" }
            if then.sha256 != files[1]?.sha256 { return "other weights in \(name)" }
        }
        return nil
    }

    // MARK: The record

    /// The origin of the run that this process makes.
    /// - Parameter sources: the values of options that name data.
    static func origin(_ sources: [String], _ adapter: URL?, _ device: Device) throws -> RunOrigin {
        var paths = try DataSource.all(sources).compactMap { $0.file?.relativePath }
        if let adapter {
            paths += ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"].map {
                adapter.appendingPathComponent($0).path
            }
        }
        var seen: Set<String> = []
        let files = try paths.filter { seen.insert($0).inserted }.compactMap { try file($0) }
        return RunOrigin(
            arguments: arguments, folder: FileManager.default.currentDirectoryPath, files: files, device: device)
    }

    /// - Returns: `nil` for what is no regular file, such as a pipe.
    private static func file(_ path: String) throws -> RunOrigin.File? {
        var status = stat()
        let url = Output.url(path)
        guard stat(url.path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
        let size = Int(status.st_size)
        return RunOrigin.File(path: path, bytes: size, sha256: try UploadFile.sha256(of: url, size: size))
    }
}
