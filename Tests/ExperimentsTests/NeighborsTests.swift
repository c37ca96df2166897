import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import TestSupport
import Testing
import Torch

@testable import Experiments
@testable import PEFT

/// Soft prompts among six words whose angles and distances are worked out by hand.
@Suite struct NeighborsTests {
    private static let words = ["the", "news", "summary", "red", "report", "summar"]
    /// The words' embeddings in their first three dimensions.
    private static let vectors: [[Float]] = [
        [1, 0, 0], [0, 2, 0], [3, 4, 0], [0, 0, 5], [-1, -1, 0], [4, 3, 0],
    ]
    /// The virtual tokens: the embedding of the third word, and one along the first.
    private static let prompt: [[Float]] = [[3, 4, 0], [7, 0, 0]]
    private static let entries = 96, size = 24

    private static func padded(_ vector: [Float]) -> [Float] {
        vector + Array(repeating: 0, count: size - vector.count)
    }

    private func report(_ change: (inout Neighbors.Options) -> Void = { _ in }) throws -> NeighborsReport {
        let model = try ModelFolder(Checkout.model("llama")).load()
        // The table's further entries are padding that the tokenizer doesn't have, here the prompt itself.
        let table = Self.vectors + Array(repeating: Self.prompt[0], count: Self.entries - Self.vectors.count)
        let path = model.inputEmbedding + ".weight"
        let parameter = try #require(model.parameters().first { $0.path == path }).parameter
        #expect(parameter.tensor.shape == [Self.entries, Self.size])
        parameter.tensor = Tensor(table.flatMap(Self.padded), shape: [Self.entries, Self.size])
        var configuration = PromptTuning.Configuration()
        configuration.tokens.count = Self.prompt.count
        let adapter = try Adapter(MethodChoice(PromptTuning.self, configuration), on: model)
        let soft = try #require(adapter.storedTensors()["prompt_embeddings"])
        soft.copy(from: Tensor(Self.prompt.flatMap(Self.padded), shape: [Self.prompt.count, Self.size]))
        let tokenizer = try withTemporaryFolder { folder in
            try WordTokenizer.write(Self.words, to: folder)
            return try Tokenizer.load(folder: folder)
        }
        var options = Neighbors.Options()
        change(&options)
        return try Neighbors(adapter, tokenizer: tokenizer, options: options).report(name: "prompt", model: "llama")
    }

    private func expect(
        _ neighbors: [NeighborsReport.Neighbor], _ expected: [(id: Int, value: Double)],
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(neighbors.map(\.id) == expected.map(\.id), sourceLocation: sourceLocation)
        #expect(neighbors.map(\.text) == expected.map { Self.words[$0.id] }, sourceLocation: sourceLocation)
        for (neighbor, (_, value)) in zip(neighbors, expected) {
            #expect(abs(neighbor.value - value) < 1e-5, "\(neighbor.text)", sourceLocation: sourceLocation)
        }
    }

    @Test func aWordsEmbeddingIsNearestToTheWord() throws {
        let report = try report { $0.count = 4 }
        #expect(report.tokens.map(\.name) == ["1", "2"] && report.adapter == "prompt" && report.model == "llama")
        let token = report.tokens[0]
        expect(token.cosine, [(2, 1), (5, 24.0 / 25), (1, 0.8), (0, 0.6)])
        expect(token.distance, [(2, 0), (5, 2.0.squareRoot()), (1, 13.0.squareRoot()), (0, 20.0.squareRoot())])
        // The word and the virtual token are one point of the map.
        #expect(token.place.count == 2 && token.neighborPlaces.count == 4)
        for axis in 0..<2 { #expect(abs(token.place[axis] - token.neighborPlaces[0][axis]) < 1e-5) }
        #expect(
            abs(token.neighborPlaces[1][0] - token.place[0]) + abs(token.neighborPlaces[1][1] - token.place[1]) > 0.01
        )
    }

    /// By angle the shortest word is nearest, by distance the longest two.
    @Test func anglesAndDistancesRankApart() throws {
        let token = try report { $0.count = 3 }.tokens[1]
        expect(token.cosine, [(0, 1), (5, 0.8), (2, 0.6)])
        expect(token.distance, [(5, 18.0.squareRoot()), (2, 32.0.squareRoot()), (0, 6)])
    }

    @Test func entriesBeyondTheTokenizersAreLeftOut() throws {
        let report = try report { $0.count = 50 }
        for token in report.tokens {
            #expect(token.cosine.map(\.id).sorted() == Array(0..<6))
            #expect(token.distance.map(\.id).sorted() == Array(0..<6))
        }
        // The last ones: opposite, and furthest.
        let last = try #require(report.tokens[0].cosine.last)
        #expect(last.id == 4 && abs(last.value + 7 / (5 * 2.0.squareRoot())) < 1e-5)
        let furthest = try #require(report.tokens[0].distance.last)
        #expect(furthest.id == 3 && abs(furthest.value - 50.0.squareRoot()) < 1e-5)
    }

    /// The five words nearest to both virtual tokens are all but the fifth. Of their ten pairs, six have the cosines 0.96,
    /// 0.8 (twice) and 0.6 (twice); the others are at right angles.
    @Test func clusteringIsTheMeanOverPairs() throws {
        let report = try report()
        let expected = (0.96 + 2 * 0.8 + 2 * 0.6) / 10
        #expect(report.tokens.allSatisfy { abs($0.clustering - expected) < 1e-6 })
        #expect(abs(report.clustering.mean - expected) < 1e-6 && report.clustering.values.count == 2)
        #expect(report.randomClustering.values.count == 200)
        #expect(report.randomClustering.values.allSatisfy { (-1.0001...1.0001).contains($0) })
        // The same draws for the same seed.
        #expect(try self.report().randomClustering.values == report.randomClustering.values)
        #expect(try self.report { $0.seed = 1 }.randomClustering.values != report.randomClustering.values)
        #expect(report.untrainedClustering?.values.count == 2)
    }

    /// It is that of five words, as the report says and as the random groups are, whatever number is listed.
    @Test func clusteringDoesNotDependOnTheListsLength() throws {
        let expected = try report().clustering.mean
        for count in [1, 2] {
            let mean = try report { $0.count = count }.clustering.mean
            #expect(abs(mean - expected) < 1e-6, "\(count) listed")
        }
    }

    /// A task word, or a piece of at least four letters that begins it.
    @Test func taskWordsAreMarked() throws {
        let report = try report { $0.taskWords = ["Summarize", "rep", "the"] }
        let marked = report.tokens[0].cosine.filter(\.namesTask).map(\.text)
        #expect(marked.sorted() == ["summar", "the"])
        #expect(report.sentences(.terminal).contains { $0.hasPrefix("2 of 2 virtual tokens have a task word") })
        #expect(Neighbors.bare("▁Sum-marize!") == "summarize")
        #expect(
            Neighbors.words(inTemplates: ["Summarize the following: {dialogue}", "A summary of {dialogue}: {x}"])
                == ["summarize", "dialogue", "summary"])
    }

    @Test func adaptersWithoutVirtualTokensAreRefused() throws {
        let model = try ModelFolder(Checkout.model("llama")).load()
        let adapter = try Adapter(MethodChoice(LoRA.self), on: model)
        let tokenizer = try Tokenizer.load(folder: Checkout.tinyT5)
        let error = try #require(throws: PEFTError.self) {
            try Neighbors(adapter, tokenizer: tokenizer).report(name: "lora", model: "llama")
        }
        #expect(error.problem.contains("has no virtual tokens among the input embeddings"))
    }
}
