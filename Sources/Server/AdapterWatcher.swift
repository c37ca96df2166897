import Foundation
import Logging
import PEFTSupport
import ServiceLifecycle
import Serving

/// Keeps the adapters of a folder's subfolders registered: new, changed and removed ones.
struct AdapterWatcher: Service {
    let folder: URL
    let engine: Engine
    let names: ModelNames
    let interval: Duration
    let logger: Logger
    /// Names that other sources have taken.
    let reserved: Set<String>

    /// Sizes and times of an adapter's files, which change with them.
    typealias Stamp = [String: String]

    func run() async throws {
        try? await cancelWhenGracefulShutdown {
            var known: [String: Stamp] = [:]
            var logged: Set<Int> = []
            var before = scan()
            // At the start nothing is being written.
            await apply(before, &known)
            logRejected(known, &logged)
            while !Task.isCancelled {
                try await Task.sleep(for: interval)
                let now = scan()
                // A folder that is being written changes between two scans.
                await apply(now.filter { before[$0.key] == $0.value || known[$0.key] == $0.value }, &known, all: now)
                logRejected(known, &logged)
                before = now
            }
        }
    }

    private func apply(_ stable: [String: Stamp], _ known: inout [String: Stamp], all: [String: Stamp]? = nil) async {
        for name in known.keys where (all ?? stable)[name] == nil {
            known[name] = nil
            try? await engine.unloadAdapter(name)
            logger.info("adapter removed", metadata: ["adapter": .string(name)])
        }
        for (name, stamp) in stable.sorted(by: { $0.key < $1.key }) where known[name] != stamp {
            known[name] = stamp
            do {
                try await engine.registerAdapter(name, from: folder.appendingPathComponent(name))
                guard engine.adapters.contains(where: { $0.name == name && $0.problem == nil }) else { continue }
                logger.info("adapter registered", metadata: ["adapter": .string(name)])
            } catch { return }
        }
    }

    /// Logs each adapter that is of no use once: when it is found, or when a request was the first to load it.
    /// - Parameter logged: versions of the adapters that were logged.
    private func logRejected(_ known: [String: Stamp], _ logged: inout Set<Int>) {
        let rejected = engine.adapters.filter { $0.problem != nil && known[$0.name] != nil }
        for status in rejected where !logged.contains(status.version) {
            logger.warning(
                "adapter rejected",
                metadata: ["adapter": .string(status.name), "problem": .string(status.problem ?? "")])
        }
        logged = Set(rejected.map(\.version))
    }

    private func scan() -> [String: Stamp] {
        let manager = FileManager.default
        let paths = AdapterPaths([folder.path])
        var result: [String: Stamp] = [:]
        for name in (try? manager.contentsOfDirectory(atPath: folder.path)) ?? [] where !name.hasPrefix(".") {
            let own = folder.appendingPathComponent(name)
            guard !reserved.contains(name), (try? names.requireValid(name)) != nil,
                (try? paths.folder(name)) != nil,
                manager.fileExists(atPath: own.appendingPathComponent("adapter_config.json").path)
            else { continue }
            var stamp: Stamp = [:]
            for file in (try? manager.contentsOfDirectory(atPath: own.path)) ?? [] {
                let attributes = try? manager.attributesOfItem(atPath: own.appendingPathComponent(file).path)
                let date = (attributes?[.modificationDate] as? Date)?.timeIntervalSince1970 ?? 0
                stamp[file] = "\(attributes?[.size] ?? 0) \(date)"
            }
            result[name] = stamp
        }
        return result
    }
}
