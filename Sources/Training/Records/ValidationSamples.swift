import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers

/// Texts that a model generates for the first validation examples, to be followed over a run.
package struct ValidationSamples {
    package static let fileName = "samples.jsonl"

    package struct Sample: Codable, Sendable, Equatable {
        package var prompt: String
        package var target: String
        package var output: String
    }

    /// The samples after a step: a line of `samples.jsonl`.
    package struct Snapshot: Codable, Sendable, Equatable {
        package var step: Int
        /// Seconds since 1970.
        package var time: Double
        package var samples: [Sample]
    }

    private struct Part {
        let prompt: [Int]
        let target: [Int]
    }

    private let parts: [Part]
    private let tokenizer: Tokenizer
    private let maxNewTokens: Int

    /// - Parameter examples: encoded validation examples; of a conversation, the last turn that contributes to the loss is
    ///   generated.
    package init(_ examples: some Sequence<EncodedExample>, tokenizer: Tokenizer, count: Int, maxNewTokens: Int = 64)
    {
        parts = examples.lazy.map(Self.part).filter { !$0.prompt.isEmpty }.prefix(count).map { $0 }
        (self.tokenizer, self.maxNewTokens) = (tokenizer, maxNewTokens)
    }

    private static func part(_ example: EncodedExample) -> Part {
        guard let loss = example.loss, let last = loss.lastIndex(of: true) else {
            return Part(prompt: example.input, target: example.target)
        }
        let start = loss[..<last].lastIndex(of: false).map { $0 + 1 } ?? 0
        return Part(
            prompt: example.input + example.target[..<start], target: Array(example.target[start...last]))
    }

    /// Generates greedily with the model as it is.
    package func generate(_ model: any LanguageModel) throws -> [Sample] {
        let parameters = GenerateParameters(maxNewTokens: maxNewTokens, temperature: 0, beams: 1)
        let encoder = try RowEncoder(tokenizer, for: model, maxInputTokens: .max)
        let texts = try Generator(model, parameters).generate(
            parts.map(\.prompt), constraint: nil,
            beginnings: model.architecture == .encoderDecoder
                ? parts.map { encoder.beginning(of: $0.target) } : nil)
        return zip(parts, texts).map { part, tokens in
            Sample(
                prompt: tokenizer.decode(tokens: part.prompt), target: tokenizer.decode(tokens: part.target),
                output: tokenizer.decode(tokens: tokens))
        }
    }

    /// All samples of a run, in the order of steps.
    package static func read(in folder: URL) -> [Snapshot] {
        RunMetrics.wholeLines(folder.appendingPathComponent(fileName)).compactMap {
            try? JSONDecoder().decode(Snapshot.self, from: Data($0.utf8))
        }
    }
}
