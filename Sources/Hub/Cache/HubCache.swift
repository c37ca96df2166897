import Foundation
import PEFTSupport

/// The cache of Python's `huggingface_hub`: `models--owner--name/{blobs,refs,snapshots,.no_exist}`.
///
/// A blob is named by its checksum; the snapshot of a commit has relative symlinks to blobs; a ref stores the last known
/// commit of a branch or tag.
package struct HubCache: Sendable {
    package let folder: URL
    private let usesSymlinks: Bool

    package init(_ settings: HubSettings = HubSettings()) {
        folder = settings.cache
        usesSymlinks = settings.usesSymlinks
    }

    /// The cached snapshot of a name's revision, if there is one.
    package func snapshot(_ name: HubName) -> URL? {
        guard let commit = commit(of: name) else { return nil }
        let snapshot = snapshotFolder(name, commit: commit)
        return FileManager.default.fileExists(atPath: snapshot.path) ? snapshot : nil
    }

    /// The last known commit of the revision.
    package func commit(of name: HubName) -> String? {
        let reference = repository(name).appendingPathComponent("refs/\(name.revision)")
        if let text = try? String(contentsOf: reference, encoding: .utf8) {
            let commit = text.trimmingCharacters(in: .whitespacesAndNewlines)
            return Self.isCommit(commit) ? commit : nil
        }
        return Self.isCommit(name.revision) ? name.revision : nil
    }

    /// Names of the cached models, sorted.
    package var names: [String] {
        let folders = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return folders.filter { $0.hasPrefix("models--") }.map {
            String($0.dropFirst("models--".count)).replacing("--", with: "/")
        }.sorted()
    }

    static func isCommit(_ text: String) -> Bool {
        (40...64).contains(text.utf8.count)
            && text.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
    }

    func repository(_ name: HubName) -> URL { folder.appendingPathComponent(name.folderName) }

    func snapshotFolder(_ name: HubName, commit: String) -> URL {
        repository(name).appendingPathComponent("snapshots/\(commit)", isDirectory: true)
    }

    func blob(_ name: HubName, etag: String) -> URL { repository(name).appendingPathComponent("blobs/\(etag)") }

    /// Bytes of a blob that are cached, complete or not.
    func bytes(of etag: String, _ name: HubName) -> Int {
        let blob = blob(name, etag: etag).path
        return [blob, blob + ".incomplete"].reduce(0) { most, path in
            var status = stat()
            return stat(path, &status) == 0 ? max(most, Int(status.st_size)) : most
        }
    }

    func lock(_ name: HubName, etag: String) -> URL {
        folder.appendingPathComponent(".locks/\(name.folderName)/\(etag).lock")
    }

    /// - Throws: ``PEFTError`` with the system's reason.
    func createFolder(_ url: URL) throws {
        do { try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true) } catch {
            throw PEFTError(
                "can't create \(url.path)",
                remedy: "check permissions and free space, or set HF_HOME to another folder")
        }
    }

    /// Stores the commit of a branch or tag. The file is replaced atomically, and not touched if it is up to date.
    func setCommit(_ commit: String, of name: HubName) throws {
        guard name.revision != commit else { return }
        let reference = repository(name).appendingPathComponent("refs/\(name.revision)")
        if let text = try? String(contentsOf: reference, encoding: .utf8), text == commit { return }
        try createFolder(reference.deletingLastPathComponent())
        // A unique name: several threads and processes may write at once.
        let temporary = reference.path + ".\(String(UInt32.random(in: 0...UInt32.max), radix: 16)).tmp"
        try AtomicFile.write(commit, to: URL(fileURLWithPath: temporary))
        guard rename(temporary, reference.path) == 0 else {
            let reason = String(cString: strerror(errno))
            unlink(temporary)
            throw PEFTError("can't write \(reference.path): \(reason)", remedy: "check permissions")
        }
    }

    /// Records that a commit has no such file, which saves Python's tools a request. Failures are ignored.
    func noteAbsence(of file: String, name: HubName, commit: String) {
        let url = repository(name).appendingPathComponent(".no_exist/\(commit)/\(file)")
        guard RemotePath.isSafe(file), !FileManager.default.fileExists(atPath: url.path) else { return }
        try? FileManager.default.createDirectory(
            at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        let descriptor = open(url.path, O_WRONLY | O_CREAT, 0o644)
        if descriptor >= 0 { close(descriptor) }
    }

    /// Links a blob into a snapshot.
    func link(_ name: HubName, commit: String, file: String, etag: String) throws {
        let snapshot = snapshotFolder(name, commit: commit)
        let place = snapshot.appendingPathComponent(file)
        try createFolder(place.deletingLastPathComponent())
        let up = String(repeating: "../", count: 2 + file.split(separator: "/").count - 1)
        let target = "\(up)blobs/\(etag)"
        if let there = try? FileManager.default.destinationOfSymbolicLink(atPath: place.path), there == target {
            return
        }
        let temporary = place.path + ".tmp-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        if !usesSymlinks || symlink(target, temporary) != 0 {
            do {
                try FileManager.default.copyItem(
                    at: blob(name, etag: etag).resolvingSymlinksInPath(), to: URL(fileURLWithPath: temporary))
            } catch {
                unlink(temporary)
                throw PEFTError("can't write \(place.path)", remedy: "check permissions and free space")
            }
        }
        guard rename(temporary, place.path) == 0 else {
            let reason = String(cString: strerror(errno))
            unlink(temporary)
            throw PEFTError("can't write \(place.path): \(reason)", remedy: "check permissions and free space")
        }
    }
}
