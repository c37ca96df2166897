import Foundation
import PEFTSupport

/// The files of a repository at one commit.
struct RepositoryListing {
    let commit: String
    /// By path.
    let files: [String: File]

    struct File {
        /// Size in bytes, if the hub sends it.
        let size: Int?
        /// Name of the blob, if the hub sends it.
        let blob: String?
    }

    /// - Parameter data: the answer to `GET /api/models/<id>/revision/<revision>`.
    /// - Throws: ``PEFTError`` for an invalid response, or a path outside the repository's folder.
    init(_ data: Data, name: HubName) throws {
        let source = "the hub's answer about \(name)"
        let json = try JSON.parse(data, name: source)
        guard let commit = json["sha"]?.string, HubCache.isCommit(commit), let siblings = json["siblings"]?.array
        else {
            throw PEFTError(
                "\(source) has no commit or files", remedy: "check that HF_ENDPOINT is the address of a hub")
        }
        var files: [String: File] = [:]
        for sibling in siblings {
            guard let path = sibling["rfilename"]?.string else { continue }
            guard RemotePath.isSafe(path) else {
                throw PEFTError(
                    "\(name) lists the file '\(path)', which is outside its folder",
                    remedy: "nothing was downloaded; don't trust this repository")
            }
            let blob = sibling["lfs"]?["sha256"]?.string ?? sibling["blobId"]?.string
            files[path] = File(
                size: sibling["size"]?.int.flatMap { (0...(1 << 50)).contains($0) ? $0 : nil },
                blob: blob.flatMap { Checksum(etag: $0) == nil ? nil : $0 })
        }
        (self.commit, self.files) = (commit, files)
    }
}
