import Foundation
import PEFTSupport
import Torch

/// Weights in one file, or in shards listed by an index.
package enum TensorShards {
    /// Opens the file of that name, or the shards in its index; empty if neither exists.
    /// - Throws: ``PEFTError`` for an index without shards, and for a missing or damaged shard.
    package static func files<File: TensorFile>(in folder: URL, _ name: String, _ read: (URL) throws -> File) throws
        -> [any TensorFile]
    {
        let single = folder.appendingPathComponent(name)
        if FileManager.default.fileExists(atPath: single.path) { return [try read(single)] }
        let index = folder.appendingPathComponent("\(name).index.json")
        guard FileManager.default.fileExists(atPath: index.path) else { return [] }
        guard let map = try JSON.read(index)["weight_map"]?.object, !map.isEmpty else {
            throw PEFTError("\(index.path) has no 'weight_map'", remedy: "download the file again")
        }
        var shards: [String: any TensorFile] = [:]
        for (tensor, value) in map.sorted(by: { $0.key < $1.key }) {
            guard let shard = value.string, !shard.contains("/"), shard != "..", !shard.isEmpty else {
                throw PEFTError("\(index.path) lists no file for '\(tensor)'", remedy: "download the file again")
            }
            if shards[shard] == nil {
                let file = folder.appendingPathComponent(shard)
                guard FileManager.default.fileExists(atPath: file.path) else {
                    throw PEFTError("\(folder.path) lacks the shard '\(shard)'", remedy: "download all of its files")
                }
                shards[shard] = try read(file)
            }
        }
        return shards.sorted { $0.key < $1.key }.map(\.value)
    }
}

/// Several tensor files presented as one.
package final class JoinedTensorFile: TensorFile {
    package let url: URL
    package let entries: [String: TensorEntry]
    private let owner: [String: any TensorFile]

    /// - Throws: ``PEFTError`` if two files contain the same tensor.
    package init(_ files: [any TensorFile], url: URL) throws {
        self.url = url
        var owner: [String: any TensorFile] = [:]
        for file in files {
            for name in file.entries.keys.sorted() {
                if let other = owner[name] {
                    throw PEFTError(
                        "'\(name)' is in both \(other.url.lastPathComponent) and \(file.url.lastPathComponent)",
                        remedy: "download all of \(url.path) again")
                }
                owner[name] = file
            }
        }
        self.owner = owner
        entries = owner.reduce(into: [:]) { $0[$1.key] = $1.value.entries[$1.key] }
    }

    package func tensor(_ name: String) throws -> Tensor {
        guard let file = owner[name] else {
            throw PEFTError(
                "\(url.path) has no tensor '\(name)'",
                remedy: nearestName(to: name, in: Array(owner.keys)).map { "did you mean '\($0)'?" })
        }
        return try file.tensor(name)
    }

    package func forget(_ name: String) { owner[name]?.forget(name) }
}
