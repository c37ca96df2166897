import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import PEFTHub

/// The hub of `hub_server.py` on a port of this machine, with a cache of its own.
final class TestHub {
    let folder: URL
    private(set) var settings: HubSettings
    private let server: HubServer

    /// Calls `body` with a hub that holds `repositories`: name → path → content.
    static func run(
        _ repositories: [String: [String: Data]], faults: JSON = [:], _ body: (TestHub) throws -> Void
    ) throws {
        let hub = try TestHub(repositories, faults: faults)
        defer { hub.stop() }
        try body(hub)
    }

    private init(_ repositories: [String: [String: Data]], faults: JSON) throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("peft-hub-\(UUID().uuidString)")
        settings = HubSettings(environment: ["HF_HUB_CACHE": folder.appendingPathComponent("cache").path])
        settings.retryDelay = 0.01
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        server = try HubServer(folder: folder)
        settings.endpoint = server.endpoint
        for (name, files) in repositories {
            for (path, data) in files { try put(data, path, in: name) }
        }
        try set(faults)
    }

    private func stop() {
        server.stop()
        try? FileManager.default.removeItem(at: folder)
    }

    func put(_ data: Data, _ path: String, in name: String) throws {
        let url = folder.appendingPathComponent("repos/\(name)/\(path)")
        try FileManager.default.createDirectory(
            at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try data.write(to: url)
    }

    /// Says what goes wrong from now on; see `hub_server.py`.
    func set(_ faults: JSON) throws {
        try AtomicFile.write(faults.text(), to: folder.appendingPathComponent("faults.json"))
    }

    struct Request: Equatable {
        let host: String
        let method: String
        let path: String
        let token: String?
        let range: String?
    }

    /// What was asked of the hub so far.
    var requests: [Request] {
        get throws {
            let log = folder.appendingPathComponent("requests.jsonl")
            guard let text = try? String(contentsOf: log, encoding: .utf8) else { return [] }
            return try text.split(separator: "\n").map {
                let json = try JSON.parse(Data($0.utf8), name: "log")
                return Request(
                    host: json["host"]?.string ?? "", method: json["method"]?.string ?? "",
                    path: json["path"]?.string ?? "", token: json["token"]?.string, range: json["range"]?.string)
            }
        }
    }

    @discardableResult func pull(
        _ name: String, _ selection: FileSelection = FileSelection(), _ change: (inout HubSettings) -> Void = { _ in }
    ) throws -> HubSnapshot {
        var settings = settings
        change(&settings)
        return try HubClient(settings).pull(HubName(name), selection)
    }

    var cache: HubCache { HubCache(settings) }
    func repository(_ name: String) throws -> URL { cache.repository(try HubName(name)) }

    /// Names of blobs that are there, finished or not.
    func blobs(_ name: String) throws -> [String] {
        let blobs = try repository(name).appendingPathComponent("blobs").path
        return ((try? FileManager.default.contentsOfDirectory(atPath: blobs)) ?? []).sorted()
    }

    /// The name of a blob that isn't all there.
    func unfinished(_ name: String) throws -> String? { try blobs(name).first { $0.hasSuffix(".incomplete") } }
}

extension HubSnapshot {
    var paths: [String] { files.map(\.path) }
    /// What had to be fetched.
    var newFiles: [String] { files.filter(\.isNew).map(\.path) }
}

/// Bytes that look like nothing in particular.
func content(_ count: Int, seed: UInt64 = 1) -> Data {
    var random = SeededRandom(seed: seed)
    return Data((0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) })
}

/// The error that `body` has to throw.
func failure(_ body: () throws -> Void, sourceLocation: SourceLocation = #_sourceLocation) throws -> PEFTError {
    do { try body() } catch { return try #require(error as? PEFTError, sourceLocation: sourceLocation) }
    Issue.record("nothing was thrown", sourceLocation: sourceLocation)
    return PEFTError("")
}
