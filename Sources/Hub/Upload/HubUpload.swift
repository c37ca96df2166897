import Foundation
import PEFTSupport

/// Uploads a folder to a hub as one commit.
///
/// The steps are those of `huggingface_hub`: create the repository, ask how each file is to be stored (preupload), send large
/// files by Git LFS (basic or multipart), and commit all files.
package struct HubUpload: Sendable {
    package let name: HubName
    package let files: [UploadFile]
    package let message: String
    /// The visibility of a repository that is created; `nil` for the owner's default.
    package let isPrivate: Bool?
    private let settings: HubSettings

    /// The outcome of an upload.
    package struct Result: Sendable {
        package var isNewRepository = false
        /// How each file is stored; files that the repository ignores (`.gitignore`) are missing.
        package var modes: [String: UploadFile.Mode] = [:]
        /// Large files whose content the hub had already.
        package var known: Set<String> = []
        /// The commit; `nil` of a dry run.
        package var commit: String?
        /// The address of the repository, or of the commit.
        package var url = ""
    }

    /// - Throws: ``PEFTError`` without a token.
    package init(
        _ files: [UploadFile], to name: HubName, message: String, isPrivate: Bool? = nil,
        settings: HubSettings = HubSettings()
    ) throws {
        guard !settings.isOffline else {
            throw PEFTError("can't upload: HF_HUB_OFFLINE is set", remedy: "unset it")
        }
        guard settings.token != nil else {
            throw PEFTError(
                "there is no token for \(settings.endpoint)",
                remedy: "set HF_TOKEN to a token with permission to write, or log in with hf auth login")
        }
        (self.files, self.name, self.message, self.isPrivate, self.settings) = (
            files, name, message, isPrivate, settings
        )
    }

    private var errors: UploadErrors { UploadErrors(name: name, settings: settings) }
    private var revision: String { RemotePath.encoded(name.revision, keepingSlashes: false) }

    /// - Parameters:
    ///   - isDryRun: whether to stop before anything changes on the hub.
    ///   - progress: called with the bytes of large files that were sent.
    ///   - isCancelled: polled several times per second.
    /// - Throws: ``PEFTError``; `CancellationError`.
    package func run(
        isDryRun: Bool = false, progress: @escaping (Int) -> Void = { _ in },
        isCancelled: @escaping @Sendable () -> Bool = { false }
    ) throws -> Result {
        do {
            let connection = try HubConnection(settings, isCancelled: isCancelled)
            var result = Result()
            result.url = "\(settings.endpoint)/\(name.id)"
            let exists = try repositoryExists(connection)
            result.isNewRepository = !exists
            if !exists {
                if isDryRun { return result }
                try create(connection)
            }
            result.modes = try modes(connection)
            if isDryRun { return result }
            let large = files.filter { result.modes[$0.path] == .lfs }
            let sums = try large.map { ($0, try $0.sha256()) }
            result.known = try LFSUpload(
                name: name, settings: settings, connection: connection, errors: errors, progress: progress
            ).send(sums)
            let commit = try commit(
                connection, regular: files.filter { result.modes[$0.path] == .regular }, large: sums)
            result.commit = commit["commitOid"]?.string
            if let url = commit["commitUrl"]?.string { result.url = url }
            return result
        } catch let failure as HTTPFailure { throw errors.error(failure) }
    }

    private func repositoryExists(_ connection: HubConnection) throws -> Bool {
        let response = try connection.retrying {
            try connection.send("\(settings.endpoint)/api/models/\(name.id)")
        }
        switch response.status {
        case 200: return true
        // A private repository of others looks the same; then creating it is denied.
        case 404: return false
        case 401 where response["x-error-code"] == "RepoNotFound": return false
        default: throw errors.error(response, "look up \(name.id)")
        }
    }

    private func create(_ connection: HubConnection) throws {
        let parts = name.id.split(separator: "/").map { JSON.string(String($0)) }
        var fields: [String: JSON] = ["name": parts.last ?? "", "type": "model"]
        if parts.count > 1 { fields["organization"] = parts[0] }
        if let isPrivate { fields["visibility"] = isPrivate ? "private" : "public" }
        let response = try connection.retrying {
            try connection.send(
                "\(settings.endpoint)/api/repos/create", headers: ["Content-Type": "application/json"],
                body: .post(.object(fields)))
        }
        // Another program has created it in the meantime.
        guard response.status != 409 else { return }
        guard (200..<300).contains(response.status) else { throw errors.error(response, "create \(name.id)") }
    }

    /// Asks how each file is to be stored, for up to 256 files per request.
    private func modes(_ connection: HubConnection) throws -> [String: UploadFile.Mode] {
        var modes: [String: UploadFile.Mode] = [:]
        for start in stride(from: 0, to: files.count, by: 256) {
            let part = files[start..<min(start + 256, files.count)]
            let entries = try part.map { file -> JSON in
                [
                    "path": .string(file.path), "size": .integer(file.size),
                    "sample": .string(try file.sample().base64EncodedString()),
                ]
            }
            let response = try connection.retrying {
                try connection.send(
                    "\(settings.endpoint)/api/models/\(name.id)/preupload/\(revision)",
                    headers: ["Content-Type": "application/json"], body: .post(["files": .array(entries)]))
            }
            guard response.status == 200 else { throw errors.error(response, "upload to \(name)") }
            let answers = try errors.json(response)["files"]?.array ?? []
            let byPath = Dictionary(answers.map { ($0["path"]?.string ?? "", $0) }, uniquingKeysWith: { $1 })
            for file in part {
                guard let answer = byPath[file.path], let text = answer["uploadMode"]?.string,
                    let mode = UploadFile.Mode(rawValue: text)
                else { throw errors.malformed("how to store \(file.path)") }
                if answer["shouldIgnore"]?.bool == true { continue }
                // Git LFS has no empty objects.
                modes[file.path] = file.size == 0 ? .regular : mode
            }
        }
        return modes
    }

    /// One line of JSON for the message and for each file.
    private func commit(_ connection: HubConnection, regular: [UploadFile], large: [(UploadFile, String)]) throws
        -> JSON
    {
        var lines: [JSON] = [
            ["key": "header", "value": ["summary": .string(message), "description": ""]]
        ]
        for file in regular {
            lines.append([
                "key": "file",
                "value": [
                    "path": .string(file.path), "encoding": "base64",
                    "content": .string(try file.content().base64EncodedString()),
                ],
            ])
        }
        for (file, sum) in large {
            lines.append([
                "key": "lfsFile",
                "value": [
                    "path": .string(file.path), "algo": "sha256", "oid": .string(sum), "size": .integer(file.size),
                ],
            ])
        }
        let body = Data(lines.map { $0.text(indent: nil) + "\n" }.joined().utf8)
        // Not retried: a commit whose answer was lost would be repeated.
        let response = try connection.send(
            "\(settings.endpoint)/api/models/\(name.id)/commit/\(revision)",
            headers: ["Content-Type": "application/x-ndjson"], body: .post(body))
        guard (200..<300).contains(response.status) else { throw errors.error(response, "commit to \(name)") }
        return try errors.json(response)
    }
}
