import Foundation
import PEFTSupport

/// Sends files as objects of Git LFS: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md
///
/// Objects go in one request (`basic`), or in parts of a size that the hub states in `header.chunk_size` (`multipart`).
struct LFSUpload {
    let name: HubName
    let settings: HubSettings
    let connection: HubConnection
    let errors: UploadErrors
    let progress: (Int) -> Void

    private static let headers = [
        "Accept": "application/vnd.git-lfs+json", "Content-Type": "application/vnd.git-lfs+json",
    ]

    /// - Parameter files: files with their SHA-256.
    /// - Returns: paths of files whose content the hub had already.
    func send(_ files: [(UploadFile, String)]) throws -> Set<String> {
        var known: Set<String> = []
        var sent = 0
        for start in stride(from: 0, to: files.count, by: 256) {
            let part = files[start..<min(start + 256, files.count)]
            let answers = try batch(part.map { ($0.1, $0.0.size) })
            for (file, sum) in part {
                guard let answer = answers[sum] else { throw errors.malformed("where to send \(file.path)") }
                if let problem = answer["error"] {
                    throw PEFTError(
                        "the hub rejected \(file.path): \(problem["message"]?.string ?? "no reason given")",
                        remedy: "check the file's size and the limits of the account")
                }
                guard let actions = answer["actions"]?.object, let upload = actions["upload"] else {
                    known.insert(file.path)
                    continue
                }
                try send(file, sum, upload, sent: sent)
                sent += file.size
                if let verify = actions["verify"]?["href"]?.string {
                    let response = try connection.retrying {
                        try connection.send(
                            verify, headers: Self.headers,
                            body: .post(["oid": .string(sum), "size": .integer(file.size)]))
                    }
                    guard (200..<300).contains(response.status) else {
                        throw errors.error(response, "verify \(file.path)")
                    }
                }
            }
        }
        return known
    }

    private func batch(_ objects: [(sum: String, size: Int)]) throws -> [String: JSON] {
        let request: JSON = [
            "operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha256",
            "ref": ["name": .string(name.revision)],
            "objects": .array(objects.map { ["oid": .string($0.sum), "size": .integer($0.size)] }),
        ]
        let response = try connection.retrying {
            try connection.send(
                "\(settings.endpoint)/\(name.id).git/info/lfs/objects/batch", headers: Self.headers,
                body: .post(request))
        }
        guard response.status == 200 else { throw errors.error(response, "upload large files to \(name)") }
        let answers = try errors.json(response)["objects"]?.array ?? []
        return Dictionary(answers.map { ($0["oid"]?.string ?? "", $0) }, uniquingKeysWith: { $1 })
    }

    private func send(_ file: UploadFile, _ sum: String, _ upload: JSON, sent: Int) throws {
        guard let address = upload["href"]?.string else { throw errors.malformed("where to send \(file.path)") }
        let header = upload["header"]?.object ?? [:]
        guard let chunk = header["chunk_size"] else {
            let response = try put(file, address, offset: 0, count: file.size)
            progress(sent + file.size)
            return try check(response, file)
        }
        guard let size = chunk.int ?? chunk.string.flatMap({ Int($0) }), size > 0 else {
            throw errors.malformed("the size of the parts of \(file.path)")
        }
        let addresses = header.compactMap { key, value in Int(key).flatMap { n in value.string.map { (n, $0) } } }
            .sorted { $0.0 < $1.0 }
        guard addresses.count == (file.size + size - 1) / size else {
            throw errors.malformed("the parts of \(file.path)")
        }
        var parts: [JSON] = []
        for (index, (_, part)) in addresses.enumerated() {
            let offset = index * size
            let response = try put(file, part, offset: offset, count: min(size, file.size - offset))
            try check(response, file)
            guard let tag = response["etag"], !tag.isEmpty else {
                throw errors.malformed("the checksum of part \(index + 1) of \(file.path)")
            }
            parts.append(["partNumber": .integer(index + 1), "etag": .string(tag)])
            progress(sent + min(file.size, offset + size))
        }
        let response = try connection.retrying {
            try connection.send(
                address, headers: Self.headers, body: .post(["oid": .string(sum), "parts": .array(parts)]))
        }
        try check(response, file)
    }

    private func put(_ file: UploadFile, _ address: String, offset: Int, count: Int) throws -> HTTPResponse {
        try connection.retrying {
            try connection.send(address, body: .put(file.url, offset: offset, count: count))
        }
    }

    private func check(_ response: HTTPResponse, _ file: UploadFile) throws {
        guard (200..<300).contains(response.status) else { throw errors.error(response, "upload \(file.path)") }
    }
}
