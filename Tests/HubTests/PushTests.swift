import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import PEFTHub

/// Uploads to a local server, which checks sizes and checksums with Python's `hashlib`.
struct PushTests {
    /// Larger than a part of curl's buffer, and no multiple of the parts of the tests.
    static let weights = content(300_001)

    private func push(
        _ hub: TestHub, _ name: String = "owner/new", files: [String: Data]? = nil, isPrivate: Bool? = nil,
        isDryRun: Bool = false, token: String? = "secret"
    ) throws -> HubUpload.Result {
        let folder = hub.folder.appendingPathComponent("adapter")
        try? FileManager.default.removeItem(at: folder)
        let usual: [String: Data] = [
            "adapter_config.json": Data("{}".utf8), "adapter_model.safetensors": Self.weights,
            "README.md": Data("# é".utf8), "runs/metrics.csv": Data("step\n".utf8), ".hidden": Data("no".utf8),
            "empty.bin": Data(), "trace.log": Data("ignored".utf8),
        ]
        for (path, data) in files ?? usual {
            let url = folder.appendingPathComponent(path)
            try FileManager.default.createDirectory(
                at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try data.write(to: url)
        }
        var settings = hub.settings
        settings.token = token
        return try HubUpload(
            UploadFile.all(in: folder), to: HubName(name), message: "Add it", isPrivate: isPrivate,
            settings: settings
        ).run(isDryRun: isDryRun)
    }

    private func stored(_ hub: TestHub, _ path: String, in name: String = "owner/new") -> Data? {
        try? Data(contentsOf: hub.folder.appendingPathComponent("repos/\(name)/\(path)"))
    }

    @Test func aFolderBecomesARepository() throws {
        try TestHub.run([:]) { (hub) throws in
            let result = try push(hub, isPrivate: true)
            #expect(result.isNewRepository && result.commit?.count == 40 && result.url.contains("/commit/"))
            #expect(result.modes["adapter_model.safetensors"] == .lfs && result.modes["README.md"] == .regular)
            // Git LFS has no empty objects.
            #expect(result.modes["empty.bin"] == .regular && result.modes["trace.log"] == nil)
            #expect(stored(hub, "adapter_model.safetensors") == Self.weights)
            #expect(stored(hub, "README.md") == Data("# é".utf8) && stored(hub, "empty.bin") == Data())
            #expect(stored(hub, "runs/metrics.csv") == Data("step\n".utf8))
            #expect(stored(hub, ".hidden") == nil && stored(hub, "trace.log") == nil)
            let created = try JSON.read(hub.folder.appendingPathComponent("created.json"))
            #expect(created == ["name": "new", "organization": "owner", "type": "model", "visibility": "private"])
            #expect(
                try JSON.read(hub.folder.appendingPathComponent("commit.json"))["summary"] == "Add it")
            // The token goes to the hub alone.
            for request in try hub.requests {
                #expect(request.token == (request.host == "hub" ? "Bearer secret" : nil), "\(request)")
            }
            // Again: the content of the large file is there.
            let again = try push(hub)
            #expect(!again.isNewRepository && again.known == ["adapter_model.safetensors"])
            #expect(try hub.requests.count { $0.method == "PUT" } == 1)
            // What was pushed can be pulled.
            #expect(try hub.pull("owner/new").paths.contains("adapter_model.safetensors"))
        }
    }

    @Test func largeFilesGoInParts() throws {
        try TestHub.run([:], faults: ["part_size": 100_000]) { (hub) throws in
            _ = try push(hub)
            #expect(stored(hub, "adapter_model.safetensors") == Self.weights)
            #expect(try hub.requests.count { $0.method == "PUT" && $0.host == "storage" } == 4)
        }
    }

    @Test func aDryRunChangesNothing() throws {
        try TestHub.run(["owner/old": ["config.json": Data("{}".utf8)]]) { (hub) throws in
            let new = try push(hub, isDryRun: true)
            #expect(new.isNewRepository && new.commit == nil && new.modes.isEmpty)
            let old = try push(hub, "owner/old", isDryRun: true)
            #expect(!old.isNewRepository && old.modes["adapter_model.safetensors"] == .lfs)
            #expect(stored(hub, "README.md", in: "owner/old") == nil && stored(hub, "README.md") == nil)
            #expect(try hub.requests.allSatisfy { $0.method == "GET" || $0.path.contains("/preupload/") })
        }
    }

    @Test func temporaryFailuresAreRetried() throws {
        let faults: JSON = [
            "status": [
                ["path": "/objects/", "methods": ["PUT"], "code": 500, "times": 2],
                ["path": "/preupload/", "methods": ["POST"], "code": 503, "times": 1],
            ]
        ]
        try TestHub.run([:], faults: faults) { (hub) throws in
            _ = try push(hub)
            #expect(stored(hub, "adapter_model.safetensors") == Self.weights)
        }
    }

    @Test func refusalsSayWhatToDo() throws {
        try TestHub.run([:]) { (hub) throws in
            let anonymous = try failure { _ = try push(hub, token: nil) }
            #expect(anonymous.description.contains("HF_TOKEN"))
            let wrong = try failure { _ = try push(hub, token: "other") }
            #expect(wrong.problem.contains("rejected the token") && wrong.description.contains("write"), "\(wrong)")
            try hub.set([
                "status": [
                    [
                        "path": "/repos/create", "methods": ["POST"], "code": 403,
                        "body": #"{"error": "You have no rights here"}"#,
                    ]
                ]
            ])
            let denied = try failure { _ = try push(hub) }
            #expect(denied.description.contains("create owner/new: You have no rights here"))
            #expect(denied.description.contains("'owner'"))
            try hub.set(["rejected": "over quota"])
            let rejected = try failure { _ = try push(hub) }
            #expect(rejected.problem.contains("adapter_model.safetensors: over quota"))
            try hub.set(["status": [["path": "/commit/", "methods": ["POST"], "code": 412]]])
            let refusal1 = try failure { _ = try push(hub) }
            #expect(refusal1.description.contains("push again"))
            // A commit is sent once.
            try hub.set(["status": [["path": "/commit/", "methods": ["POST"], "code": 500]]])
            let before = try hub.requests.count { $0.path.contains("/commit/") }
            let refusal2 = try failure { _ = try push(hub) }
            #expect(refusal2.problem.contains("status 500"))
            #expect(try hub.requests.count { $0.path.contains("/commit/") } == before + 1)
            try hub.set(["status": [["path": "/preupload/", "methods": ["POST"], "code": 200, "body": "{}"]]])
            let refusal3 = try failure { _ = try push(hub) }
            #expect(refusal3.problem.contains("does not state how to store"))
            let refusal4 = try failure { _ = try push(hub, files: [".hidden": Data()]) }
            #expect(refusal4.problem.contains("no files"))
        }
    }
}
