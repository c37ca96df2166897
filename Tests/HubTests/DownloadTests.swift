import Foundation
import PEFTSupport
import Testing

@testable import PEFTHub

/// One file under all that can happen on the way.
struct DownloadTests {
    private static let weights = content(400_000, seed: 7)
    private static let model = ["o/m": ["config.json": Data("{}".utf8), "model.safetensors": weights]]

    private func expectWeights(_ snapshot: HubSnapshot, sourceLocation: SourceLocation = #_sourceLocation) throws {
        let data = try Data(contentsOf: snapshot.folder.appendingPathComponent("model.safetensors"))
        #expect(data == Self.weights, sourceLocation: sourceLocation)
    }

    @Test func aCutConnectionIsContinued() throws {
        let faults: JSON = ["cut": ["model.safetensors": ["after": 100_000, "times": 3]]]
        try TestHub.run(Self.model, faults: faults) { (hub) throws in
            try expectWeights(hub.pull("o/m"))
            let ranges = try hub.requests.filter { $0.host == "storage" }.map(\.range)
            #expect(ranges == [nil, "bytes=100000-", "bytes=200000-", "bytes=300000-"])
        }
    }

    @Test func aPullThatGaveUpIsContinuedByTheNext() throws {
        let faults: JSON = ["cut": ["model.safetensors": ["after": 50_000, "times": 2]]]
        try TestHub.run(Self.model, faults: faults) { (hub) throws in
            let error = try failure { try hub.pull("o/m") { $0.attempts = 1 } }
            #expect(error.description.contains("run the same command again to resume"))
            #expect(try hub.cache.snapshot(HubName("o/m")) == nil, "main is what it was until all is there")
            let name = try #require(try hub.unfinished("o/m"))
            #expect(name.count == 64 + ".incomplete".count)
            try expectWeights(hub.pull("o/m"))
            #expect(try hub.requests.contains { $0.range == "bytes=50000-" })
            #expect(try hub.unfinished("o/m") == nil)
        }
    }

    @Test func aServerWithoutRangesStartsAnew() throws {
        let faults: JSON = ["cut": ["model.safetensors": ["after": 9_000, "times": 2]], "no_ranges": true]
        try TestHub.run(Self.model, faults: faults) { (hub) throws in try expectWeights(hub.pull("o/m")) }
    }

    @Test func aWrongBeginningIsThrownAway() throws {
        try TestHub.run(Self.model) { (hub) throws in
            let etag = try #require(Self.etag)
            let blobs = try hub.repository("o/m").appendingPathComponent("blobs")
            try FileManager.default.createDirectory(at: blobs, withIntermediateDirectories: true)
            for left in [content(1000, seed: 99), content(500_000, seed: 98), Self.weights, Data()] {
                try? FileManager.default.removeItem(
                    at: hub.settings.cache.appendingPathComponent("models--o--m/snapshots"))
                try? FileManager.default.removeItem(at: blobs.appendingPathComponent(etag))
                try left.write(to: blobs.appendingPathComponent("\(etag).incomplete"))
                try expectWeights(hub.pull("o/m"))
            }
        }
    }

    private static var etag: String? {
        var digest = Digest(for: .sha256(""), count: 0)
        digest.add(weights)
        guard case .sha256(let text) = digest.finish() else { return nil }
        return text
    }

    @Test func damagedFilesNeverGetTheirName() throws {
        for file in ["model.safetensors", "config.json"] {
            try TestHub.run(Self.model, faults: ["damage": [file: 100]]) { (hub) throws in
                // One after the other: a failure stops what else is under way, which is then unfinished.
                let error = try failure { try hub.pull("o/m") { $0.connections = 1 } }
                #expect(error.problem.contains(file) && error.problem.contains("checksum"))
                #expect(try hub.cache.snapshot(HubName("o/m")) == nil)
                #expect(try hub.unfinished("o/m") == nil)
                try hub.set([:])
                try expectWeights(hub.pull("o/m"))
            }
        }
    }

    @Test func sizesMayBeUnknown() throws {
        // No sizes in the listing, none at HEAD, and bodies that end with the connection.
        try TestHub.run(Self.model, faults: ["plain": true, "direct": true, "no_length": true]) { (hub) throws in
            try expectWeights(hub.pull("o/m"))
        }
    }

    @Test func versionsThatAreNoChecksumsAreTaken() throws {
        try TestHub.run(Self.model, faults: ["etag": "v-1.2", "direct": true]) { (hub) throws in
            // One version for both files: the first that came is what the other gets, were sizes not looked at.
            let snapshot = try hub.pull("o/m", FileSelection(includes: ["model.safetensors"]))
            try expectWeights(snapshot)
            #expect(try hub.blobs("o/m") == ["v-1.2"])
        }
        try TestHub.run(Self.model) { (hub) throws in
            for etag in ["../x", "a/b", "..", ".hidden"] {
                try hub.set(["etag": .string(etag), "direct": true])
                let error = try failure { try hub.pull("o/m") }
                #expect(error.problem.contains("invalid ETag '\(etag)'"), "\(etag)")
            }
        }
        #expect(FileDownload.normalized("W/\"abc\"") == "abc" && FileDownload.normalized("\"abc\"") == "abc")
    }

    @Test func redirectsWithinTheHubAreFollowed() throws {
        var repositories = Self.model
        repositories["o/m-new"] = Self.model["o/m"]
        try TestHub.run(repositories, faults: ["moved": true, "token": "t"]) { (hub) throws in
            try expectWeights(hub.pull("o/m") { $0.token = "t" })
            #expect(try hub.requests.contains { $0.path.hasPrefix("/o/m-new/") && $0.token == "Bearer t" })
        }
    }

    @Test func pullsOfTheSameFileShareTheWork() throws {
        try TestHub.run(Self.model) { (hub) throws in
            let failures = Locked<[String]>([])
            let settings = hub.settings
            DispatchQueue.concurrentPerform(iterations: 6) { _ in
                do { _ = try HubClient(settings).pull(HubName("o/m")) } catch {
                    failures.with { $0.append("\(error)") }
                }
            }
            #expect(failures.with { $0 } == [])
            try expectWeights(hub.pull("o/m"))
            #expect(try hub.requests.filter { $0.host == "storage" && $0.method == "GET" }.count == 1)
        }
    }

    @Test func aCancelledPullLeavesWhatCanBeContinued() throws {
        try TestHub.run(Self.model) { (hub) throws in
            let isStopped = Locked(false)
            #expect(throws: CancellationError.self) {
                try HubClient(hub.settings).pull(
                    HubName("o/m"), progress: { _ in isStopped.with { $0 = true } },
                    isCancelled: { isStopped.with { $0 } })
            }
            try expectWeights(hub.pull("o/m"))
        }
    }

    @Test func blobsOfAnOlderCommitAreUsedAgain() throws {
        try TestHub.run(Self.model) { (hub) throws in
            let old = try hub.pull("o/m")
            try hub.set(["commit": "later"])
            try hub.put(Data("{\"a\": 1}".utf8), "config.json", in: "o/m")
            let new = try hub.pull("o/m")
            #expect(new.commit != old.commit)
            #expect(new.newFiles == ["config.json"])
            #expect(try hub.cache.snapshot(HubName("o/m")) == new.folder)
            #expect(try Data(contentsOf: old.folder.appendingPathComponent("config.json")) == Data("{}".utf8))
        }
    }

    @Test func aCutBlobUnderItsNameIsReplaced() throws {
        try TestHub.run(Self.model) { (hub) throws in
            let snapshot = try hub.pull("o/m")
            let file = snapshot.folder.appendingPathComponent("model.safetensors")
            let blob = file.resolvingSymlinksInPath()
            try Data(Self.weights.prefix(10)).write(to: blob)
            try FileManager.default.removeItem(at: file)
            try expectWeights(hub.pull("o/m"))
        }
    }

    @Test func withoutSymlinksFilesAreCopies() throws {
        try TestHub.run(Self.model) { (hub) throws in
            let snapshot = try hub.pull("o/m") { $0.usesSymlinks = false }
            let file = snapshot.folder.appendingPathComponent("model.safetensors").path
            #expect((try? FileManager.default.destinationOfSymbolicLink(atPath: file)) == nil)
            try expectWeights(snapshot)
        }
    }

    @Test func progressEndsAtTheSum() throws {
        try TestHub.run(Self.model) { (hub) throws in
            let last = Locked(HubProgress())
            _ = try HubClient(hub.settings).pull(
                HubName("o/m"), progress: { progress in last.with { $0 = progress } })
            let end = last.with { $0 }
            #expect(end.files == 2 && end.totalFiles == 2)
            #expect(end.bytes == 400_002 && end.totalBytes == 400_002)
        }
    }
}
