import Foundation
import PEFTSupport
import Training

/// Finds the records of training runs and the reports in a folder and its subfolders.
package struct RunFinder: Sendable {
    /// A file that may hold a run.
    package struct File: Sendable {
        package let url: URL
        /// Path relative to the folder of runs.
        package let path: String
        /// Changes whenever the content does: size and time of modification.
        package let stamp: String
        let isTraining: Bool
        let modified: Double
    }

    package let folder: URL
    private static let deepest = 6
    private static let most = 20_000
    private static let largest = 64 << 20
    /// JSON files of model and adapter folders, which are no reports.
    private static let others: Set = [
        "config.json", "adapter_config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "special_tokens_map.json", "training.json", "vocab.json", "added_tokens.json", "state.json",
    ]

    package init(_ folder: URL) { self.folder = folder }

    /// All files that may hold a run.
    package func files() -> [File] {
        var found: [File] = []
        var left = Self.most
        func visit(_ folder: URL, _ prefix: String, depth: Int) {
            let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
            for name in names.sorted() where !name.hasPrefix(".") && left > 0 {
                left -= 1
                let url = folder.appendingPathComponent(name)
                var status = stat()
                // Links are not followed: they may lead elsewhere, or in a circle.
                guard lstat(url.path, &status) == 0 else { continue }
                switch status.st_mode & S_IFMT {
                case S_IFDIR where depth < Self.deepest: visit(url, prefix + name + "/", depth: depth + 1)
                case S_IFREG where name == RunDescription.fileName:
                    let metrics = Self.stamp(folder.appendingPathComponent(RunMetrics.fileName))
                    found.append(
                        File(
                            url: url, path: prefix + name, stamp: Self.stamp(url) + metrics, isTraining: true,
                            modified: Self.modified(status)))
                case S_IFREG
                where name.hasSuffix(".json") && !Self.others.contains(name) && status.st_size < Self.largest:
                    found.append(
                        File(
                            url: url, path: prefix + name, stamp: Self.stamp(url), isTraining: false,
                            modified: Self.modified(status)))
                default: break
                }
            }
        }
        visit(folder, "", depth: 0)
        return found
    }

    private static func stamp(_ file: URL) -> String {
        var status = stat()
        guard stat(file.path, &status) == 0 else { return "-" }
        return "\(status.st_size)@\(modified(status)) "
    }

    private static func modified(_ status: stat) -> Double {
        #if canImport(Darwin)
            let time = status.st_mtimespec
        #else
            let time = status.st_mtim
        #endif
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }

    /// The run in a file; `nil` if there is none.
    package func entry(_ file: File) throws -> RunEntry? {
        if file.isTraining {
            guard let run = training(file) else { return nil }
            return try RunEntry(run)
        }
        guard let data = try? Data(contentsOf: file.url) else { return nil }
        return RunEntry(report: data, name: file.path, date: Date(timeIntervalSince1970: file.modified))
    }

    private func training(_ file: File) -> TrainingRun? {
        TrainingRun.read(in: file.url.deletingLastPathComponent(), name: Self.name(ofRecords: file.path))
    }

    /// The name of the run with a description at a path: `mail` for both `mail/runs/run.json` and
    /// `mail.checkpoint/runs/run.json`, where it is until the run ends.
    static func name(ofRecords path: String) -> String {
        var parts = path.split(separator: "/").dropLast().map(String.init)
        if parts.count > 1, parts.last == RunLog.folderName { parts.removeLast() }
        let suffix = ".checkpoint"
        if let last = parts.last, last.hasSuffix(suffix), last.count > suffix.count {
            parts[parts.count - 1] = String(last.dropLast(suffix.count))
        }
        return parts.isEmpty ? RunLog.folderName : parts.joined(separator: "/")
    }

    /// The records of a training run as they are now; `nil` if they are gone.
    package func training(named name: String) -> TrainingRun? {
        let folders =
            name == RunLog.folderName
            ? [""] : ["\(name).checkpoint/\(RunLog.folderName)", "\(name)/\(RunLog.folderName)", name]
        // The name comes from this class, not from a client; still, it must not leave the folder.
        guard !name.split(separator: "/").contains("..") else { return nil }
        return folders.lazy.compactMap { path in
            TrainingRun.read(in: folder.appendingPathComponent(path), name: name)
        }.first
    }
}
