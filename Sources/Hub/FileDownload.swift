import Foundation
import PEFTSupport

/// The download of one file of a repository into the cache.
///
/// Data is appended to `<blob>.incomplete`, which a later attempt resumes, in this process or another. Only after size and
/// checksum are verified and the data is on disk is the file renamed to the blob's name.
struct FileDownload {
    let file: String
    let name: HubName
    let commit: String
    let settings: HubSettings
    let connection: HubConnection
    let isCancelled: @Sendable () -> Bool
    /// Bytes of this file that are present.
    let report: (Int) -> Void

    private var cache: HubCache { HubCache(settings) }
    private var errors: HubErrors { HubErrors(name: name, settings: settings) }
    private var address: String {
        "\(settings.endpoint)/\(name.id)/resolve/\(commit)/\(RemotePath.encoded(file))"
    }

    /// The file's metadata from the hub.
    struct Metadata {
        let etag: String
        let size: Int?
    }

    /// Downloads the file if it isn't cached.
    /// - Returns: its size, and whether anything was downloaded.
    func run() throws -> (size: Int, isNew: Bool) {
        let place = cache.snapshotFolder(name, commit: commit).appendingPathComponent(file)
        if let size = Self.size(place) {
            report(size)
            return (size, false)
        }
        let metadata = try metadata()
        let blob = cache.blob(name, etag: metadata.etag)
        let lockFile = cache.lock(name, etag: metadata.etag)
        try cache.createFolder(blob.deletingLastPathComponent())
        try cache.createFolder(lockFile.deletingLastPathComponent())
        var isNew = false
        do {
            let lock = try CacheLock(lockFile, isCancelled: isCancelled)
            if let size = Self.size(blob), metadata.size == nil || metadata.size == size {
                report(size)
            } else {
                try download(metadata, to: blob)
                isNew = true
            }
            try cache.link(name, commit: commit, file: file, etag: metadata.etag)
            _ = consume lock
        } catch let failure as HTTPFailure { throw errors.error(failure, file: file) }
        return (Self.size(blob) ?? 0, isNew)
    }

    private static func size(_ url: URL) -> Int? {
        var status = stat()
        guard stat(url.path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
        return Int(status.st_size)
    }

    private func metadata() throws -> Metadata {
        let response: HTTPResponse
        do {
            response = try connection.retrying {
                try connection.send(address, isHead: true, stopsAtOtherHosts: true)
            }
        } catch let failure as HTTPFailure { throw errors.error(failure, file: file) }
        guard (200..<300).contains(response.status) || response.isRedirect else {
            if response.status == 404, response["x-error-code"] == "EntryNotFound" {
                cache.noteAbsence(of: file, name: name, commit: commit)
            }
            throw errors.error(response, file: file)
        }
        guard let raw = response["x-linked-etag"] ?? response["etag"] else {
            throw PEFTError(
                "the hub sent no ETag for \(file) of \(name)",
                remedy: "check that HF_ENDPOINT is the address of a hub, and check the proxy")
        }
        if let actual = response["x-repo-commit"], actual != commit {
            throw PEFTError("the hub returned a different commit of \(name)", remedy: "try again")
        }
        let etag = Self.normalized(raw)
        guard RemotePath.isSafe(etag), !etag.contains("/"), !etag.hasPrefix("."), etag.utf8.count <= 128 else {
            throw PEFTError(
                "the hub sent the invalid ETag '\(etag)' for \(file) of \(name)", remedy: "don't trust this hub")
        }
        // The length of a redirect response is that of its body.
        let isItsOwn = !response.isRedirect && response["content-encoding"] ?? "identity" == "identity"
        let own = isItsOwn ? response["content-length"] : nil
        let size = (response["x-linked-size"] ?? own).flatMap { Int($0) }.flatMap { $0 >= 0 ? $0 : nil }
        return Metadata(etag: etag, size: size)
    }

    /// An ETag without quotes and the weak prefix `W/`.
    static func normalized(_ etag: String) -> String {
        let strong = etag.hasPrefix("W/") ? String(etag.dropFirst(2)) : etag
        return strong.trimmingCharacters(in: CharacterSet(charactersIn: "\""))
    }

    private func download(_ metadata: Metadata, to blob: URL) throws {
        let partial = try PartialFile(
            URL(fileURLWithPath: blob.path + ".incomplete"), isCancelled: isCancelled)
        let checksum = Checksum(etag: metadata.etag)
        // Data left by an earlier attempt may be wrong, so try once more from the beginning.
        for isLast in [false, true] {
            let wasContinued = partial.size > 0
            try transfer(metadata, into: partial)
            try partial.flush()
            guard let checksum, try partial.checksum(like: checksum, isCancelled: isCancelled) != checksum else {
                return try partial.rename(to: blob)
            }
            try partial.truncate()
            if isLast || !wasContinued {
                partial.remove()
                throw PEFTError(
                    "the checksum of the downloaded \(file) of \(name) is not \(metadata.etag)",
                    remedy: "the download was discarded; try again, and check the proxy if it happens again")
            }
        }
    }

    /// Appends the missing data until the size is reached.
    private func transfer(_ metadata: Metadata, into partial: PartialFile) throws {
        if let size = metadata.size, partial.size > size { try partial.truncate() }
        report(partial.size)
        if let size = metadata.size, partial.size == size { return }
        var expected = metadata.size
        let response = try connection.retrying(progress: { partial.size }) {
            let start = partial.size
            let headers = start > 0 ? ["Range": "bytes=\(start)-"] : [:]
            let response = try connection.send(address, headers: headers) { head in
                if head.status == 206 {
                    guard Self.rangeStart(head) == start else {
                        throw HTTPFailure.impossible("the server sent another part than was asked for")
                    }
                } else {
                    // The server sends the whole file instead of the requested range.
                    try partial.truncate()
                    if expected == nil, head["content-encoding"] == nil {
                        expected = head["content-length"].flatMap { Int($0) }
                    }
                }
                return { bytes in
                    if let size = metadata.size, partial.size + bytes.count > size {
                        throw HTTPFailure.impossible("the server sends more than the \(size) bytes it announced")
                    }
                    try partial.append(bytes)
                    report(partial.size)
                }
            }
            if response.status == 416 {
                // The present data doesn't belong to this file.
                try partial.truncate()
                throw HTTPFailure.cut("the server has no such range")
            }
            // The connection ended early without an error.
            if (200..<300).contains(response.status), let expected, partial.size < expected {
                throw HTTPFailure.cut("\(partial.size) of \(expected) bytes arrived")
            }
            return response
        }
        guard (200..<300).contains(response.status) else { throw errors.error(response, file: file) }
        if let size = metadata.size, partial.size != size {
            throw HTTPFailure.impossible("\(partial.size) bytes arrived instead of \(size)")
        }
    }

    /// `bytes 100-199/200` begins at 100.
    private static func rangeStart(_ head: HTTPResponse) -> Int? {
        head["content-range"]?.split(separator: " ").last?.split(separator: "-").first.flatMap { Int($0) }
    }
}
