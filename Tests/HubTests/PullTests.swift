import Foundation
import PEFTSupport
import Testing

@testable import PEFTHub

/// Pulls from a local server. Checksums are the server's, computed by Python's `hashlib`.
struct PullTests {
    static let weights = content(300_000)
    static let model: [String: [String: Data]] = [
        "owner/small": [
            "config.json": Data("{}".utf8), "tokenizer.json": Data("{\"é\": 1}".utf8), "README.md": Data("read".utf8),
            "model.safetensors": weights, "pytorch_model.bin": content(1000), "generation_config.json": Data(),
            "onnx/model.safetensors": content(10),
        ]
    ]

    @Test func whatIsNeededArrivesAsPythonKeepsIt() throws {
        try TestHub.run(Self.model) { (hub) throws in
            let snapshot = try hub.pull("owner/small")
            #expect(
                snapshot.paths == [
                    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                ])
            #expect(snapshot.newFiles == snapshot.paths)
            for file in snapshot.files {
                let url = snapshot.folder.appendingPathComponent(file.path)
                #expect(try Data(contentsOf: url) == Self.model["owner/small"]?[file.path])
                let target = try FileManager.default.destinationOfSymbolicLink(atPath: url.path)
                #expect(target.hasPrefix("../../blobs/"), "\(target)")
            }
            let repository = try hub.repository("owner/small")
            #expect(repository.lastPathComponent == "models--owner--small")
            #expect(
                try String(contentsOf: repository.appendingPathComponent("refs/main"), encoding: .utf8)
                    == snapshot.commit)
            // Large files are named by their SHA-256, the others as git names them: here the empty blob.
            let blobs = try hub.blobs("owner/small")
            #expect(blobs.contains("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"))
            #expect(blobs.count == 4 && blobs.contains { $0.count == 64 })
            let absent = repository.appendingPathComponent(".no_exist/\(snapshot.commit)/adapter_config.json")
            #expect(FileManager.default.fileExists(atPath: absent.path))
            #expect(hub.cache.names == ["owner/small"])
            #expect(try hub.cache.snapshot(HubName("owner/small")) == snapshot.folder)
            // Again: one question for the commit, nothing else.
            let before = try hub.requests.count
            let again = try hub.pull("owner/small@\(snapshot.commit)")
            #expect(again.newFiles == [] && again.folder == snapshot.folder)
            #expect(try hub.requests.count == before + 1)
        }
    }

    @Test func theTokenGoesToTheHubAlone() throws {
        try TestHub.run(Self.model, faults: ["token": "secret"]) { (hub) throws in
            try hub.pull("owner/small") { $0.token = "secret" }
            let requests = try hub.requests
            #expect(requests.contains { $0.host == "storage" })
            for request in requests {
                #expect(request.token == (request.host == "hub" ? "Bearer secret" : nil), "\(request)")
            }
        }
    }

    @Test func refusalsSayWhatToDo() throws {
        try TestHub.run(Self.model) { (hub) throws in
            try hub.pull("owner/small", FileSelection(includes: ["config.json"]))
            let unknown = try failure { try hub.pull("owner/smal") }
            #expect(unknown.description.contains("'owner/smal'") && unknown.description.contains("'owner/small'"))
            let revision = try failure { try hub.pull("owner/small@v9") }
            #expect(revision.problem.contains("no revision 'v9'"))
            try hub.set(["token": "secret"])
            let anonymous = try failure { try hub.pull("owner/small") }
            #expect(anonymous.description.contains("HF_TOKEN"))
            let wrong = try failure { try hub.pull("owner/small") { $0.token = "other" } }
            #expect(wrong.problem.contains("rejected the token"))
            try hub.set(["token": "secret", "gated": true])
            for token in [nil, "other"] {
                let gated = try failure { try hub.pull("owner/small") { $0.token = token } }
                #expect(gated.description.contains("accept its conditions at \(hub.settings.endpoint)/owner/small"))
                #expect(gated.description.contains("HF_TOKEN"))
            }
            try hub.set(["listed": ["tokenizer_config.json"]])
            let missing = try failure { try hub.pull("owner/small") }
            #expect(missing.problem.contains("no file 'tokenizer_config.json'"))
            try hub.set([:])
            let none = try failure { try hub.pull("owner/small", FileSelection(includes: ["*.gguf"])) }
            #expect(
                none.description.contains("none of the requested files") && none.description.contains("config.json"))
        }
    }

    @Test func anUnreachableHubIsAnError() throws {
        var settings = HubSettings(environment: ["HF_HUB_CACHE": "/tmp/peft-no-cache-\(UUID().uuidString)"])
        settings.endpoint = "http://127.0.0.1:9"
        settings.retryDelay = 0.01
        let error = try failure { _ = try HubClient(settings).pull(HubName("owner/small")) }
        #expect(error.problem.contains("can't reach the hub"))
        settings.endpoint = "ftp://hub"
        #expect(throws: PEFTError.self) { try HubClient(settings).pull(HubName("owner/small")) }
    }

    @Test func offlineNothingIsAsked() throws {
        try TestHub.run(Self.model) { (hub) throws in
            let error = try failure { try hub.pull("owner/small") { $0.isOffline = true } }
            #expect(error.problem.contains("HF_HUB_OFFLINE"))
            #expect(try hub.requests.isEmpty)
        }
    }

    @Test func passingTroubleIsSatOut() throws {
        let faults: JSON = [
            "status": [
                ["path": "/api/", "code": 503, "times": 2],
                ["path": "tokenizer.json", "code": 429, "times": 1, "headers": ["Retry-After": "1"]],
                ["path": "/store/", "code": 500, "times": 3],
            ]
        ]
        try TestHub.run(Self.model, faults: faults) { (hub) throws in
            let start = ContinuousClock.now
            let snapshot = try hub.pull("owner/small")
            #expect(ContinuousClock.now - start >= .seconds(1), "Retry-After asks for a second")
            #expect(
                try Data(contentsOf: snapshot.folder.appendingPathComponent("model.safetensors")) == Self.weights)
            try hub.set(["status": [["path": "/api/", "code": 503]]])
            let error = try failure { try hub.pull("owner/small") }
            #expect(error.problem.contains("status 503"))
            try hub.set(["status": [["path": "/api/", "code": 429]]])
            let busy = try failure { try hub.pull("owner/small") }
            #expect(busy.problem.contains("limiting the rate of requests"))
            try hub.set(["status": [["path": "/api/", "code": 418]]])
            let other = try failure { try hub.pull("owner/small") }
            #expect(other.problem.contains("status 418"))
        }
    }

    @Test func retryAfterIsSecondsOrADate() {
        #expect(HubConnection.seconds("3") == 3)
        #expect(HubConnection.seconds("99999") == 120)
        #expect(HubConnection.seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0)
        #expect(HubConnection.seconds("Wed, 21 Oct 2150 07:28:00 GMT") == 120)
        #expect(HubConnection.seconds("soon") == nil)
    }

    @Test func onlyTheChosenFilesCome() throws {
        try TestHub.run(Self.model) { (hub) throws in
            func paths(_ selection: FileSelection) throws -> [String] { try hub.pull("owner/small", selection).paths }
            #expect(
                try paths(FileSelection(.description)) == ["config.json", "generation_config.json", "tokenizer.json"])
            #expect(
                try paths(FileSelection(includes: ["*.json"], excludes: ["gen*"])) == [
                    "config.json", "tokenizer.json",
                ])
            #expect(try paths(FileSelection(.all)).count == 7)
        }
    }

    @Test func shardsComeByTheirIndex() throws {
        let index =
            #"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#
        var files = [
            "config.json": Data("{}".utf8), "model.safetensors.index.json": Data(index.utf8),
            "model-00001-of-00002.safetensors": content(500, seed: 1),
            "model-00002-of-00002.safetensors": content(700, seed: 2), "pytorch_model.bin": content(9),
        ]
        try TestHub.run(["o/sharded": files]) { (hub) throws in
            let expected = files.keys.filter { $0 != "pytorch_model.bin" }.sorted()
            #expect(try hub.pull("o/sharded").paths == expected)
        }
        files["model-00002-of-00002.safetensors"] = nil
        try TestHub.run(["o/sharded": files]) { (hub) throws in
            let error = try failure { try hub.pull("o/sharded") }
            #expect(error.problem.contains("'model-00002-of-00002.safetensors'"))
        }
    }

    @Test func picklesComeOnlyWithoutSafetensors() throws {
        let files = ["config.json": Data("{}".utf8), "pytorch_model.bin": content(9), "tf_model.h5": content(9)]
        try TestHub.run([
            "o/old": files, "o/adapter": ["adapter_config.json": Data("{}".utf8), "adapter_model.bin": content(9)],
        ]) { (hub) throws in
            #expect(try hub.pull("o/old").paths == ["config.json", "pytorch_model.bin"])
            #expect(try hub.pull("o/adapter").paths == ["adapter_config.json", "adapter_model.bin"])
        }
    }

    @Test func namesOfAllKindsAreKept() throws {
        let files = [
            "größe ½ #1%.json": Data("1".utf8), "a/b c/d?.txt": Data("2".utf8), "config.json": Data("{}".utf8),
        ]
        try TestHub.run(["o/names": files]) { (hub) throws in
            let snapshot = try hub.pull("o/names@refs/pr/1", FileSelection(.all))
            for (path, data) in files {
                #expect(try Data(contentsOf: snapshot.folder.appendingPathComponent(path)) == data, "\(path)")
            }
            #expect(try hub.cache.snapshot(HubName("o/names@refs/pr/1")) == snapshot.folder)
            #expect(try hub.cache.snapshot(HubName("o/names")) == nil)
        }
    }

    @Test func pathsThatLeaveTheFolderAreRefused() throws {
        try TestHub.run(Self.model) { (hub) throws in
            let paths = ["../../x", "/etc/x", "a/../../../x", "a//b", ".", "a\\..\\b"]
            for path in paths {
                try hub.set(["listed": [.string(path)]])
                let error = try failure { try hub.pull("owner/small", FileSelection(.all)) }
                #expect(error.problem.contains("outside its folder") && error.problem.contains(path))
            }
            #expect(try hub.requests.count == paths.count, "nothing was asked for but the lists")
            #expect(!FileManager.default.fileExists(atPath: hub.settings.cache.path))
        }
    }

    @Test func namesThatNoHubHasAreErrors() throws {
        for text in [
            "", "a/b/c", "../x", "a/..", "a b", "a--b/c", "-a/b", "a/b@", "a/b@../x", "a/b@/x", "a/.b", "@main",
        ] {
            #expect(throws: PEFTError.self, "\(text)") { try HubName(text) }
        }
        #expect(try HubName("gpt2").folderName == "models--gpt2")
        #expect(try HubName("a/b@refs/pr/1").revision == "refs/pr/1")
        #expect(try HubName("a/b").description == "a/b" && HubName("a/b@v1").description == "a/b@v1")
    }
}
