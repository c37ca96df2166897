import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Serving
import TestSupport
import Testing
import Torch

/// Outputs of models with a head, for several adapters at once.
@Suite struct EncodingTests {
    /// An adapter of the fixtures, with the inputs and outputs of Hugging Face PEFT.
    private struct Case {
        let folder: URL
        let rows: [TrainingRow]
        let outputs: [[Float]]

        init(_ name: String) throws {
            folder = Checkout.root.appendingPathComponent("Tests/PEFTTests/Fixtures/hugging-face/\(name)")
            let json = try JSON.read(folder.appendingPathComponent("expected.json"))
            rows = (json["rows"]?.array ?? []).map { row in
                func numbers(_ value: JSON?) -> [Int] { (value?.array ?? []).compactMap(\.int) }
                return TrainingRow(input: numbers(row.array?.first), target: numbers(row.array?.last))
            }
            let file = try SafetensorsFile(folder.appendingPathComponent("expected.safetensors"))
            let logits = try file.tensor("logits")
            let values = logits.array(Float.self)
            let counts = rows.map { row in
                logits.dim(0) == json["rows"]?.array?.count ? 1 : row.target.count { $0 >= 0 }
            }
            var start = 0
            outputs = counts.map { count in
                defer { start += count * logits.dim(1) }
                return Array(values[start..<(start + count * logits.dim(1))])
            }
        }
    }

    private func isClose(_ a: [Float], _ b: [Float]) -> Bool {
        a.count == b.count && zip(a, b).allSatisfy { abs($0 - $1) <= 1e-4 * max(1, abs($1)) }
    }

    @Test(arguments: [
        ("bert", "task-bert-embeddings-lora"), ("bert", "task-bert-token-classification-lora"),
        ("distilbert", "task-distilbert-classification-prompt"), ("llama", "task-llama-classification-lora"),
    ])
    func outputsAreThoseOfHuggingFace(family: String, adapter: String) async throws {
        let own = try Case(adapter)
        try await SmallServer.run("heads/\(family)") { server in
            var settings = EngineSettings()
            // Requests share batches, and have several.
            settings.encodingBatch = 30
            if family == "bert" {
                // One of the two adapters is on disk at any time.
                let bytes = try AdapterFolder(own.folder).tensorShapes.reduce(0) { $0 + 4 * $1.shape.reduce(1, *) }
                settings.adapterBytes = bytes * 7 / 4
            }
            let engine = try await Engine.start(settings, tokenizer: server.tokenizer) {
                let base = try ModelFolder(server.modelFolder)
                return try base.with(AdapterFolder(own.folder).head(on: base)).load()
            }
            defer { engine.stop() }
            try await engine.loadAdapter("own", from: own.folder)
            try await engine.loadAdapter("other", from: own.folder)
            let base = try await engine.encode(EncodingRequest(own.rows))
            #expect(!zip(base, own.outputs).allSatisfy { isClose($0, $1) })
            try await withThrowingTaskGroup(of: (String?, [[Float]]).self) { group in
                for index in 0..<12 {
                    let name = ["own", "other", nil][index % 3]
                    group.addTask { (name, try await engine.encode(EncodingRequest(own.rows, adapter: name))) }
                }
                for try await (name, outputs) in group {
                    let expected = name == nil ? base : own.outputs
                    #expect(
                        outputs.count == 3 && zip(outputs, expected).allSatisfy { isClose($0, $1) },
                        "\(name ?? "base")")
                }
            }
            // Outputs arrive before the statistics of their step.
            #expect(try await eventually { engine.statistics.running == 0 })
            await #expect(throws: ServingError.self) {
                try await engine.encode(EncodingRequest(own.rows, adapter: "none"))
            }
            await #expect(throws: ServingError.self) {
                try await engine.encode(EncodingRequest([TrainingRow(input: [500])], adapter: "own"))
            }
            var late = EncodingRequest(own.rows, adapter: "own")
            late.deadline = .now - .seconds(1)
            let final = late
            await #expect(throws: ServingError.self) { try await engine.encode(final) }
            #expect(throws: ServingError.self) { try engine.submit(GenerationRequest([7], most: 1)) }
        }
    }
}
