import Foundation
import LanguageModels
import PEFT
import PEFTHub
import PEFTSupport

/// Resolves models and adapters by folder or by hub name, downloading those that are not in the cache.
enum HubFetch {
    /// The folder of a model.
    static func model(_ name: String, needing part: ModelLocator.Part = .weights) throws -> ModelFolder {
        try ModelFolder(folder(name, needing: part))
    }

    /// The same without reading it.
    static func folder(_ name: String, needing part: ModelLocator.Part) throws -> URL {
        try ModelLocator.folder(name, needing: part) { try fetch($0, $1, for: name) }
    }

    /// The folder of an adapter, without reading it.
    static func adapter(_ name: String) throws -> URL {
        let (folder, note) = AdapterFiles.locate(try ModelLocator.adapter(name) { try fetch($0, $1, for: name) })
        if let note { Console.note(note) }
        return folder
    }

    private static func fetch(_ name: HubName, _ selection: FileSelection, for text: String) throws -> URL {
        do { return try pull(name, selection, isQuiet: false).folder } catch let error as PEFTError {
            // The name may have been meant as a folder.
            throw PEFTError("there is no folder '\(text)', and \(error.problem)", remedy: error.remedy)
        }
    }

    /// Downloads with a progress bar on a terminal.
    static func pull(
        _ name: HubName, _ selection: FileSelection, isQuiet: Bool,
        isCancelled: @escaping @Sendable () -> Bool = { false }
    ) throws -> HubSnapshot {
        let settings = HubSettings()
        let line = ProgressLine(isQuiet: isQuiet || !settings.showsProgress || !Console.errorIsTerminal)
        defer { line.finish() }
        return try HubClient(settings).pull(
            name, selection, progress: { line.update($0, name: name) }, isCancelled: isCancelled)
    }

    /// The progress bar. Download threads call it one at a time.
    private final class ProgressLine: @unchecked Sendable {
        private let display: ProgressDisplay
        private let start = ContinuousClock.now
        private var first: Int?

        init(isQuiet: Bool) { display = ProgressDisplay(isQuiet: isQuiet) }

        func update(_ progress: HubProgress, name: HubName) {
            // Bytes already in the cache don't count toward the speed.
            let before = first ?? progress.bytes
            first = before
            let seconds = (ContinuousClock.now - start) / .seconds(1)
            let speed = seconds > 0.5 ? "\(Console.bytes(Int(Double(progress.bytes - before) / seconds)))/s" : ""
            let total = max(progress.totalBytes, progress.bytes)
            display.update(
                share: total > 0 ? Double(progress.bytes) / Double(total) : 0,
                [
                    .init("\(name)", rank: 3), .init("\(Console.bytes(progress.bytes)) of \(Console.bytes(total))"),
                    .init(speed, rank: 1),
                    .init("\(progress.files) of \(counted(progress.totalFiles, "file"))", rank: 2),
                    .init(progress.file, rank: 4),
                ])
        }

        func finish() { display.finish() }
    }
}
