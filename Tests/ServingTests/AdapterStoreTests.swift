import Foundation
import LanguageModels
import PEFT
import Serving
import Synchronization
import Testing
import Torch

/// Adapters are loaded, replaced and unloaded while others run.
@Suite struct AdapterStoreTests {
    private static let parameters = GenerateParameters(maxNewTokens: 60, temperature: 0)

    private func long(_ adapter: String?) -> GenerationRequest {
        var request = GenerationRequest([7, 8], adapter, most: 60)
        request.ignoresEndTokens = true
        return request
    }

    @Test func aUsedAdapterFinishesItsRequests() async throws {
        try await SmallServer.run("llama", [LoRA.self, IA3.self]) { server in
            let engine = try await server.engine()
            defer { engine.stop() }
            let expected = try await Answer(engine.submit(long("lora"))).tokens
            // Unloaded after the first token.
            let unloaded = try await Answer(engine.submit(long("lora"))) { count in
                if count == 1 { try await engine.unloadAdapter("lora") }
            }
            #expect(unloaded.tokens == expected)
            #expect(throws: ServingError.self) { try engine.submit(long("lora")) }
            #expect(
                try await eventually { engine.statistics.adapterBytes == engine.adapters.reduce(0) { $0 + $1.bytes } }
            )
            #expect(engine.adapters.map(\.name) == ["ia3"])
        }
    }

    @Test func replacingInPlaceConcernsLaterRequests() async throws {
        try await SmallServer.run("llama", [LoRA.self]) { server in
            var server = server
            try server.addAdapter("other", MethodChoice(LoRA.self), seed: 77)
            let engine = try await server.engine()
            defer { engine.stop() }
            let folder = try #require(server.adapters["other"])
            let (old, new) = (
                try await Answer(engine.submit(long("lora"))).tokens,
                try await Answer(engine.submit(long("other"))).tokens
            )
            #expect(old != new)
            await #expect(throws: ServingError.self) { try await engine.loadAdapter("lora", from: folder) }
            let running = try await Answer(engine.submit(long("lora"))) { count in
                if count == 1 { try await engine.loadAdapter("lora", from: folder, replaces: true) }
            }
            #expect(running.tokens == old)
            #expect(try await Answer(engine.submit(long("lora"))).tokens == new)
        }
    }

    @Test func adaptersUsedLeastRecentlyMakeRoom() async throws {
        try await SmallServer.run("llama") { server in
            var server = server
            for (index, name) in ["a", "b", "c", "d"].enumerated() {
                try server.addAdapter(name, MethodChoice(LoRA.self), seed: UInt64(index))
            }
            let probe = try await server.engine()
            let bytes = probe.adapters[0].bytes
            probe.stop()
            let folders = server.adapters
            server.adapters = [:]
            let engine = try await server.engine { $0.adapterBytes = 2 * bytes + bytes / 2 }
            defer { engine.stop() }
            func load(_ name: String, isPinned: Bool = false) async throws {
                try await engine.loadAdapter(name, from: #require(folders[name]), isPinned: isPinned)
            }
            func loaded() -> [String] { engine.adapters.filter { $0.state == .loaded }.map(\.name) }
            try await load("a", isPinned: true)
            try await load("b")
            #expect(loaded() == ["a", "b"])
            try await load("c")
            #expect(loaded() == ["a", "c"])
            // A request loads its adapter again.
            _ = try await Answer(engine.submit(long("b")))
            #expect(loaded() == ["a", "b"])
            #expect(engine.statistics.adapterEvictions == 2)
            #expect(engine.statistics.adapterBytes <= 2 * bytes)
            // Beside two pinned adapters nothing else fits.
            try await load("d", isPinned: true)
            let error = try await #require(throws: ServingError.self) { try await Answer(engine.submit(long("b"))) }
            #expect(error.kind == .invalid && error.message.contains("pinned"))
            try await engine.registerAdapter("e", from: #require(folders["c"]))
            #expect(engine.adapters.map(\.state) == [.loaded, .unloaded, .unloaded, .loaded, .unloaded])
            #expect(engine.adapters.allSatisfy { $0.problem == nil })
        }
    }

    /// A request whose adapter is on disk waits for its folder, and those of others go on.
    @Test func foldersAreReadWhileOthersRun() async throws {
        try await SmallServer.run("llama", [LoRA.self, IA3.self]) { server in
            var server = server
            let probe = try await server.engine()
            let bytes = probe.adapters.map(\.bytes).max() ?? 0
            let expected = try await Answer(probe.submit(long("lora"))).tokens
            probe.stop()
            let read = Mutex<[String]>([])
            let gate = DispatchSemaphore(value: 0)
            let folders = server.adapters
            server.adapters = [:]
            let engine = try await server.engine {
                $0.adapterBytes = bytes + 8
                $0.beforeReading = { name in
                    read.withLock { $0.append(name) }
                    gate.wait()
                }
            }
            defer { engine.stop() }
            for name in ["lora", "ia3"] { try await engine.loadAdapter(name, from: #require(folders[name])) }
            #expect(engine.adapters.map(\.state) == [.loaded, .unloaded])
            let waiting = try (0..<2).map { _ in try engine.submit(long("lora")) }
            for name in ["ia3", nil] { #expect(try await Answer(engine.submit(long(name))).tokens[0].count == 60) }
            #expect(engine.waitingAdapters == ["lora"])
            #expect(engine.statistics.waiting == 2 && engine.adapters.map(\.state) == [.loaded, .unloaded])
            gate.signal()
            for events in waiting { #expect(try await Answer(events).tokens == expected) }
            // Once for both requests.
            #expect(read.withLock { $0 } == ["lora"])
            #expect(engine.adapters.map(\.state) == [.unloaded, .loaded])
        }
    }

    /// A folder that is gone by then is the failure of those requests alone.
    @Test func foldersThatAreGoneFailTheirRequests() async throws {
        try await SmallServer.run("llama", [LoRA.self, IA3.self]) { server in
            var server = server
            let probe = try await server.engine()
            let bytes = probe.adapters.map(\.bytes).max() ?? 0
            probe.stop()
            let folders = server.adapters
            server.adapters = [:]
            let engine = try await server.engine { $0.adapterBytes = bytes + 8 }
            defer { engine.stop() }
            for name in ["lora", "ia3"] { try await engine.loadAdapter(name, from: #require(folders[name])) }
            try FileManager.default.removeItem(at: #require(folders["lora"]))
            let error = try await #require(throws: ServingError.self) {
                try await Answer(engine.submit(long("lora")))
            }
            #expect(error.kind == .adapter && error.message.contains("doesn't exist"), "\(error)")
            #expect(try await Answer(engine.submit(long("ia3"))).tokens[0].count == 60)
        }
    }

    /// Two adapters that don't fit at once take turns.
    @Test func requestsWaitForMemoryOfAdaptersInUse() async throws {
        try await SmallServer.run("llama", [LoRA.self, DoRA.self]) { server in
            let probe = try await server.engine()
            let bytes = probe.adapters.map(\.bytes).max() ?? 0
            let expected = (
                try await Answer(probe.submit(long("lora"))).tokens,
                try await Answer(probe.submit(long("dora"))).tokens
            )
            probe.stop()
            let engine = try await server.engine { $0.adapterBytes = bytes + 8 }
            defer { engine.stop() }
            let (first, second) = (try engine.submit(long("lora")), try engine.submit(long("dora")))
            #expect(try await Answer(first).tokens == expected.0)
            #expect(try await Answer(second).tokens == expected.1)
        }
    }

    @Test func adaptersThatDoNotFitAreRejectedAsByVerify() async throws {
        try await SmallServer.run("gpt2", [LoRA.self]) { other in
            let folder = try #require(other.adapters["lora"])
            try await SmallServer.run("llama") { server in
                let check = try AdapterCheck(AdapterFolder(folder), on: server.model(), batches: [])
                let sentence = try #require(check.problems.first)
                let engine = try await server.engine()
                defer { engine.stop() }
                let error = try await #require(throws: ServingError.self) {
                    try await engine.loadAdapter("x", from: folder)
                }
                #expect(error.message == sentence && error.kind == .adapter)
                #expect(engine.adapters.isEmpty)
                try await engine.registerAdapter("x", from: folder)
                #expect(engine.adapters.map(\.problem) == [sentence])
                #expect(throws: ServingError.self) { try engine.submit(long("x")) }
                // The base is unchanged.
                let expected = try server.offline(
                    [[7, 8]], adapter: nil, GenerateParameters(maxNewTokens: 9, temperature: 0))
                #expect(try await Answer(engine.submit(GenerationRequest([7, 8], most: 9))).tokens == expected)
            }
        }
    }

    /// LoRA with B = 0, rotations by 0, and tokens with the base's embeddings.
    @Test func adaptersThatChangeNothingAreRejectedAsByVerify() async throws {
        try await SmallServer.run("llama", [LoRA.self]) { server in
            var server = server
            var tokens = MethodChoice(TrainableTokens.self)
            try tokens.set("trainable-tokens", to: "3,90")
            let choices = [MethodChoice(LoRA.self), MethodChoice(OFT.self), tokens]
            let engine = try await server.engine()
            defer { engine.stop() }
            let good = try #require(server.adapters["lora"])
            let expected = try await Answer(engine.submit(long("lora"))).tokens
            let model = try server.model()
            let batch = model.batch([TrainingRow(input: [7, 8, 9], target: [5])], device: .cpu)
            for choice in choices {
                try server.addAdapter("useless", choice, seed: 3, deviation: 0, on: model)
                let folder = try #require(server.adapters["useless"])
                let error = try await #require(throws: ServingError.self, "\(choice.label)") {
                    try await engine.loadAdapter("lora", from: folder, replaces: true)
                }
                let check = try AdapterCheck(AdapterFolder(folder), on: model, batches: [batch])
                #expect(error.kind == .adapter && check.warnings.contains(error.message), "\(choice.label): \(error)")
                try await engine.registerAdapter("watched", from: folder)
                let status = try #require(engine.adapters.first { $0.name == "watched" })
                #expect(status.state == .rejected && status.problem == error.message)
                try await engine.registerAdapter("watched", from: good)
                #expect(engine.adapters.allSatisfy { $0.state == .loaded })
            }
            // The adapters that they would have replaced go on.
            #expect(try await Answer(engine.submit(long("lora"))).tokens == expected)
        }
    }
}
