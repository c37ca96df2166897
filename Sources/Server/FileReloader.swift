import Foundation
import Logging
import PEFTSupport
import ServiceLifecycle

/// Reads files again on SIGHUP, and when they change: API keys and the TLS certificate. What can't be read is logged, and the server
/// goes on with what it has.
final class FileReloader: Service {
    /// Files that are read together.
    struct Entry: Sendable {
        /// What they are, for the log.
        let name: String
        let paths: [String]
        /// Reads them.
        let reload: @Sendable () throws -> Void
    }

    private enum Event { case signal, look }

    private let entries: [Entry]
    private let logger: Logger
    private let events: AsyncStream<Event>
    private let sources: Sources
    private let before: [[String]]

    /// The sources of events, which last as long as the reloader.
    private struct Sources: @unchecked Sendable {
        let signal: any DispatchSourceSignal
        let timer: any DispatchSourceTimer
    }

    /// Accepts SIGHUP from now on.
    /// - Parameter interval: seconds between two looks at the files.
    init(_ entries: [Entry], interval: Double, logger: Logger) {
        (self.entries, self.logger) = (entries, logger)
        before = entries.map(\.stamps)
        let (events, continuation) = AsyncStream<Event>.makeStream(bufferingPolicy: .bufferingNewest(16))
        self.events = events
        let signals = DispatchSource.makeSignalSource(signal: SIGHUP, queue: .global())
        let timer = DispatchSource.makeTimerSource(queue: .global())
        sources = Sources(signal: signals, timer: timer)
        #if canImport(Darwin)
            // Elsewhere Dispatch handles the signal itself.
            signal(SIGHUP, SIG_IGN)
        #endif
        signals.setEventHandler { continuation.yield(.signal) }
        timer.setEventHandler { continuation.yield(.look) }
        timer.schedule(deadline: .now() + interval, repeating: interval)
        signals.resume()
        timer.resume()
    }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            var before = self.before
            for await event in self.events {
                for (index, entry) in self.entries.enumerated() {
                    let stamps = entry.stamps
                    guard event == .signal || stamps != before[index] else { continue }
                    before[index] = stamps
                    self.reload(entry)
                }
            }
        }
    }

    private func reload(_ entry: Entry) {
        do {
            try entry.reload()
            logger.info("reloaded", metadata: ["files": .string(entry.name)])
        } catch {
            let problem = (error as? PEFTError)?.description ?? "\(error)"
            logger.warning("not reloaded", metadata: ["files": .string(entry.name), "problem": .string(problem)])
        }
    }
}

extension FileReloader.Entry {
    /// Sizes and times of the files, which change with them.
    fileprivate var stamps: [String] {
        paths.map { path in
            // The file, not a symbolic link to it, as of a mounted secret.
            let real = URL(fileURLWithPath: NSString(string: path).expandingTildeInPath).resolvingSymlinksInPath()
                .path
            let attributes = try? FileManager.default.attributesOfItem(atPath: real)
            let date = (attributes?[.modificationDate] as? Date)?.timeIntervalSince1970 ?? 0
            return "\(real) \(attributes?[.size] ?? 0) \(date) \(attributes?[.systemFileNumber] ?? 0)"
        }
    }
}
