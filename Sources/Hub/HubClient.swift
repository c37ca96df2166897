import Foundation
import PEFTSupport

/// The progress of a download.
package struct HubProgress: Sendable {
    package var files = 0
    package var totalFiles = 0
    package var bytes = 0
    /// Total bytes of the files whose size is known.
    package var totalBytes = 0
    /// The current file, or the last one.
    package var file = ""
}

/// The result of a download: the repository's files in the cache.
package struct HubSnapshot: Sendable {
    package struct File: Sendable {
        package let path: String
        package let size: Int
        /// Whether it was downloaded.
        package let isNew: Bool
    }

    package let name: HubName
    package let commit: String
    package let folder: URL
    package let files: [File]
}

/// Downloads repositories from a hub into the cache shared with Python's tools.
package struct HubClient: Sendable {
    package let settings: HubSettings

    package init(_ settings: HubSettings = HubSettings()) { self.settings = settings }

    /// Downloads the selected files of a repository that are not cached.
    ///
    /// Cached files are not requested again. The next call resumes an interrupted download; the branch's or
    /// tag's ref in the cache is updated only when all files are complete.
    /// - Parameters:
    ///   - progress: called from several threads, one at a time.
    ///   - isCancelled: polled several times per second.
    /// - Throws: ``PEFTError``; `CancellationError`.
    package func pull(
        _ name: HubName, _ selection: FileSelection = FileSelection(),
        progress: @escaping @Sendable (HubProgress) -> Void = { _ in },
        isCancelled: @escaping @Sendable () -> Bool = { false }
    ) throws -> HubSnapshot {
        let cache = HubCache(settings)
        let errors = HubErrors(name: name, settings: settings)
        guard !settings.isOffline else { throw errors.offline() }
        let listing: RepositoryListing
        do {
            let connection = try HubConnection(settings, isCancelled: isCancelled)
            let revision = RemotePath.encoded(name.revision, keepingSlashes: false)
            let response = try connection.retrying {
                try connection.send("\(settings.endpoint)/api/models/\(name.id)/revision/\(revision)?blobs=true")
            }
            guard response.status == 200 else { throw errors.error(response) }
            listing = try RepositoryListing(response.body, name: name)
        } catch let failure as HTTPFailure { throw errors.error(failure) }
        let available = listing.files.keys.sorted()
        let chosen = selection.first(of: available)
        guard !chosen.isEmpty else {
            throw PEFTError(
                "\(name) has none of the requested files",
                remedy: available.isEmpty
                    ? "the repository is empty" : "its files are \(available.prefix(8).joined(separator: ", "))")
        }
        let snapshot = cache.snapshotFolder(name, commit: listing.commit)
        let state = PullState(listing: listing, progress: progress)
        try checkSpace(for: chosen, listing, name, in: snapshot)
        try fetch(chosen, state, name, isCancelled)
        let shards = try selection.shards(of: chosen, in: snapshot, available: Set(available), name: name)
            .filter { !chosen.contains($0) }
        try checkSpace(for: shards, listing, name, in: snapshot)
        try fetch(shards, state, name, isCancelled)
        for file in FileSelection.absent(from: Set(available)) {
            cache.noteAbsence(of: file, name: name, commit: listing.commit)
        }
        try cache.setCommit(listing.commit, of: name)
        return HubSnapshot(name: name, commit: listing.commit, folder: snapshot, files: state.files)
    }

    /// Downloads files in parallel; the first error stops all.
    private func fetch(
        _ files: [String], _ state: PullState, _ name: HubName, _ isCancelled: @escaping @Sendable () -> Bool
    ) throws {
        state.add(files)
        let next = Locked(Array(files.reversed()))
        let failure = Locked<(any Error)?>(nil)
        let isStopped: @Sendable () -> Bool = { isCancelled() || failure.with { $0 != nil } }
        let group = DispatchGroup()
        for _ in 0..<min(settings.connections, files.count) {
            group.enter()
            // Dedicated threads: they mostly wait for the network.
            Thread.detachNewThread {
                defer { group.leave() }
                do {
                    let connection = try HubConnection(settings, isCancelled: isStopped)
                    while let file = next.with({ $0.popLast() }) {
                        let download = FileDownload(
                            file: file, name: name, commit: state.listing.commit, settings: settings,
                            connection: connection, isCancelled: isStopped
                        ) { state.report(file, bytes: $0) }
                        let (size, isNew) = try download.run()
                        state.finish(file, size: size, isNew: isNew)
                    }
                } catch {
                    // The others only report that they were stopped.
                    failure.with { $0 = $0 ?? error }
                }
            }
        }
        group.wait()
        if let error = failure.with({ $0 }) { throw error }
    }

    /// - Throws: ``PEFTError`` if the missing data doesn't fit on the disk.
    private func checkSpace(for files: [String], _ listing: RepositoryListing, _ name: HubName, in snapshot: URL)
        throws
    {
        let cache = HubCache(settings)
        let needed = files.reduce(0) { sum, path in
            guard !FileManager.default.fileExists(atPath: snapshot.appendingPathComponent(path).path),
                let file = listing.files[path], let size = file.size
            else { return sum }
            let there = file.blob.map { cache.bytes(of: $0, name) } ?? 0
            return sum &+ max(0, size - there)
        }
        var folder = settings.cache
        while !FileManager.default.fileExists(atPath: folder.path), folder.path != "/" {
            folder = folder.deletingLastPathComponent()
        }
        var status = statvfs()
        guard statvfs(folder.path, &status) == 0 else { return }
        let free = Int(clamping: UInt64(status.f_bavail) &* UInt64(status.f_frsize))
        guard needed > free else { return }
        throw PEFTError(
            "the download needs \(needed) bytes, but the disk of \(settings.cache.path) has \(free) free",
            remedy: "free some space, or set HF_HOME to a folder on another disk")
    }
}

/// State shared by the threads of a download.
private final class PullState: Sendable {
    let listing: RepositoryListing
    private let callback: @Sendable (HubProgress) -> Void
    private struct Content {
        var progress = HubProgress()
        var bytes: [String: Int] = [:]
        var files: [HubSnapshot.File] = []
    }
    private let content = Locked(Content())

    init(listing: RepositoryListing, progress: @escaping @Sendable (HubProgress) -> Void) {
        (self.listing, callback) = (listing, progress)
    }

    var files: [HubSnapshot.File] { content.with { $0.files.sorted { $0.path < $1.path } } }

    func add(_ files: [String]) {
        let total = files.reduce(0) { $0 &+ (listing.files[$1]?.size ?? 0) }
        content.with {
            $0.progress.totalFiles += files.count
            $0.progress.totalBytes &+= total
        }
    }

    func report(_ file: String, bytes: Int) {
        content.with {
            $0.progress.bytes += bytes - ($0.bytes[file] ?? 0)
            $0.bytes[file] = bytes
            $0.progress.file = file
            callback($0.progress)
        }
    }

    func finish(_ file: String, size: Int, isNew: Bool) {
        content.with {
            $0.progress.files += 1
            $0.files.append(.init(path: file, size: size, isNew: isNew))
            callback($0.progress)
        }
    }
}
