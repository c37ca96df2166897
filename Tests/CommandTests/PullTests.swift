import Foundation
import PEFTSupport
import TestSupport
import Testing

/// `peft pull` and names on a hub, against the server of HubTests.
@Suite(.serialized)
struct PullTests {
    /// A server, and the program with an environment that names it.
    private final class Hub {
        let folder: URL
        private let server: HubServer
        private var environment = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("HF_") }

        init() throws {
            folder = FileManager.default.temporaryDirectory.appendingPathComponent("peft-pull-\(UUID().uuidString)")
            let repository = folder.appendingPathComponent("repos/owner/tiny")
            try FileManager.default.createDirectory(
                at: repository.deletingLastPathComponent(), withIntermediateDirectories: true)
            try FileManager.default.copyItem(
                at: Checkout.tinyT5, to: repository)
            server = try HubServer(folder: folder)
            environment["HF_ENDPOINT"] = server.endpoint
            environment["HF_HOME"] = folder.appendingPathComponent("home").path
        }

        func stop() {
            server.stop()
            try? FileManager.default.removeItem(at: folder)
        }

        func start(_ arguments: [String], _ more: [String: String] = [:], fileSizeLimit: Int? = nil) throws -> (
            Process, output: Pipe, error: Pipe
        ) {
            let process = Process()
            process.executableURL = Program.executable
            process.arguments = arguments
            if let fileSizeLimit {
                process.executableURL = URL(fileURLWithPath: "/bin/sh")
                process.arguments =
                    ["-c", "ulimit -f \(fileSizeLimit); exec \"$@\"", "sh", Program.executable.path] + arguments
            }
            process.environment = environment.merging(more) { $1 }
            process.currentDirectoryURL = folder
            let (output, error) = (Pipe(), Pipe())
            (process.standardOutput, process.standardError) = (output, error)
            try process.run()
            return (process, output, error)
        }

        /// - Parameter fileSizeLimit: largest file that may be written, in blocks of the shell's `ulimit -f`.
        func run(_ arguments: [String], _ more: [String: String] = [:], fileSizeLimit: Int? = nil) throws
            -> Program.Result
        {
            let (process, output, error) = try start(arguments, more, fileSizeLimit: fileSizeLimit)
            let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            let message = String(decoding: error.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            return .init(status: process.terminationStatus, output: text, error: message)
        }

        func write(_ text: String, _ path: String) throws {
            let url = folder.appendingPathComponent(path)
            try FileManager.default.createDirectory(
                at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try AtomicFile.write(text, to: url)
        }

        var log: String {
            (try? String(contentsOf: folder.appendingPathComponent("requests.jsonl"), encoding: .utf8)) ?? ""
        }

        var blobs: [URL] {
            let blobs = folder.appendingPathComponent("home/hub/models--owner--tiny/blobs")
            return (try? FileManager.default.contentsOfDirectory(at: blobs, includingPropertiesForKeys: nil)) ?? []
        }
    }

    private func withHub(_ body: (Hub) throws -> Void) throws {
        let hub = try Hub()
        defer { hub.stop() }
        try body(hub)
    }

    @Test func namesWorkWhereFoldersDo() throws {
        try withHub { (hub) throws in
            // A description is enough to look at, and is all that is fetched.
            let inspected = try hub.run(["inspect", "owner/tiny"])
            #expect(inspected.status == 0 && inspected.output.contains("t5"), "\(inspected)")
            #expect(!hub.log.contains("model.safetensors"))
            // Running it takes the weights.
            let options = ["generate", "--model", "owner/tiny", "--max-new-tokens", "3", "Summarize: Hello."]
            let made = try hub.run(options)
            #expect(made.status == 0, "\(made)")
            let expected = try hub.run(["generate", "--max-new-tokens", "3", "Summarize: Hello."])
            #expect(made.output == expected.output)
            // From now on nobody is asked.
            let before = hub.log
            let offline = try hub.run(options, ["HF_HUB_OFFLINE": "1"])
            let online = try hub.run(options)
            #expect(offline.output == expected.output && online.output == expected.output)
            #expect(hub.log == before)
        }
    }

    @Test func pullPrintsWhatItFetched() throws {
        try withHub { (hub) throws in
            let first = try hub.run(["pull", "owner/tiny", "--json"])
            let json = try JSON.parse(Data(first.output.utf8), name: "output")
            #expect(first.status == 0 && first.error.isEmpty)
            let files = json["files"]?.array ?? []
            #expect(files.contains { $0["path"] == "model.safetensors" && $0["fetched"] == true })
            #expect(!files.contains { $0["path"] == "README.md" })
            let second = try hub.run(["pull", "owner/tiny"])
            #expect(second.output == "\(json["folder"]?.string ?? "")\n")
            #expect(second.error.contains("already in the cache"))
            let part = try hub.run(["pull", "owner/tiny", "--include", "*.md", "--json"])
            #expect(part.output.contains("README.md") && !part.output.contains("config.json"))
            for (arguments, words) in [
                (["pull", "owner/tin"], ["no model 'owner/tin'", "'owner/tiny'"]),
                (["pull", "owner/tiny@v2"], ["no revision 'v2'"]), (["pull", "not a name"], ["owner/name"]),
                (["pull", "owner/tiny", "--all", "--include", "x"], ["--include"]),
                (["generate", "--model", "owner/none", "x"], ["no folder 'owner/none'", "no model"]),
            ] {
                let result = try hub.run(arguments)
                let isUsage = arguments.contains("not a name") || arguments.contains("--all")
                #expect(
                    result.status == (isUsage ? 64 : 1) && words.allSatisfy { result.error.contains($0) }, "\(result)"
                )
                #expect(result.error.split(separator: "\n").count == 1, "\(result.error)")
            }
            let offline = try hub.run(["generate", "--model", "owner/other", "x"], ["HF_HUB_OFFLINE": "1"])
            #expect(offline.status == 1 && offline.error.contains("there is no model 'owner/other'"))
        }
    }

    @Test func aFullDiskIsAnErrorAndNoLoss() throws {
        try withHub { (hub) throws in
            // A limit on sizes is as good as a disk that is full.
            let full = try hub.run(["pull", "owner/tiny"], fileSizeLimit: 8000)
            #expect(full.status == 1 && full.error.contains("free some space"), "\(full)")
            let again = try hub.run(["pull", "owner/tiny"])
            #expect(again.status == 0 && hub.log.contains(#""range": "bytes="#), "\(again)")
        }
    }

    @Test func anAdapterBringsItsBase() throws {
        try withHub { (hub) throws in
            try hub.write(#"{"talk": "Hello", "short": "They greet."}"# + "\n", "rows.jsonl")
            let trained = try hub.run([
                "train", "--data", "rows.jsonl", "--prompt", "Summarize: {talk}", "--target", "{short}", "--steps",
                "1",
                "--batch-size", "1", "--rank", "2", "--targets", "q", "--output", "repos/owner/adapter", "--quiet",
                "--model", "owner/tiny",
            ])
            #expect(trained.status == 0, "\(trained)")
            let home = ["HF_HOME": hub.folder.appendingPathComponent("other").path]
            let pulled = try hub.run(["pull", "owner/adapter", "--json"], home)
            let json = try JSON.parse(Data(pulled.output.utf8), name: "output")
            #expect(json["base"]?["name"] == "owner/tiny", "\(pulled)")
            let made = try hub.run(
                ["generate", "--adapter", "owner/adapter", "--max-new-tokens", "3", "Summarize: Hello."],
                home.merging(["HF_HUB_OFFLINE": "1"]) { $1 })
            #expect(made.status == 0, "\(made)")
            let shown = try hub.run(["inspect", "owner/adapter"], home)
            #expect(shown.status == 0 && shown.output.contains("an adapter for owner/tiny"))
        }
    }

    /// Killed in the middle, or asked to stop: the next pull continues, and nothing half has its name.
    @Test(arguments: [SIGKILL, SIGINT]) func anInterruptedPullIsContinued(signal: Int32) throws {
        try withHub { (hub) throws in
            try hub.write(#"{"slow": {"model.safetensors": 0.02}}"#, "faults.json")
            let (process, output, error) = try hub.start(["pull", "owner/tiny"])
            let end = ContinuousClock.now + .seconds(60)
            // The weights' blob is named by a SHA-256, the smaller files' ones by a SHA-1.
            func size(_ name: URL) -> Int {
                (try? FileManager.default.attributesOfItem(atPath: name.path)[.size] as? Int) ?? 0
            }
            func unfinished() -> URL? {
                hub.blobs.first { $0.lastPathComponent.utf8.count == 64 + 11 && $0.pathExtension == "incomplete" }
            }
            while ContinuousClock.now < end, unfinished().map(size) ?? 0 < 200_000 {
                Thread.sleep(forTimeInterval: 0.01)
            }
            kill(process.processIdentifier, signal)
            process.waitUntilExit()
            if signal == SIGINT {
                #expect(process.terminationStatus == 130)
                let message = String(decoding: error.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
                #expect(message.contains("rerun the same command to continue"))
            }
            _ = output
            let left = try #require(unfinished())
            #expect(size(left) > 0)
            try hub.write("{}", "faults.json")
            let again = try hub.run(["pull", "owner/tiny"])
            #expect(again.status == 0, "\(again)")
            #expect(hub.log.contains(#""range": "bytes="#))
            let folder = again.output.trimmingCharacters(in: .whitespacesAndNewlines)
            let fetched = try Data(
                contentsOf: URL(fileURLWithPath: folder).appendingPathComponent("model.safetensors"))
            let original = try Data(
                contentsOf: Checkout.root.appendingPathComponent("Models/tiny-t5/model.safetensors"))
            #expect(fetched == original)
        }
    }
}
