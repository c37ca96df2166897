import LanguageModels
import PEFTSupport
import Torch

/// Finds adapters that change nothing when they are loaded: by the logits of a few tokens, which cost about as much as a decode
/// step, and by all that `peft verify` measures if those are the base's.
package final class EffectProbe {
    private let model: any LanguageModel
    /// Batches by the tokens that they begin with, and the base's logits.
    private var samples: [[Int]: Sample] = [:]

    private struct Sample {
        let batch: TrainingBatch
        let logits: [Tensor]
    }

    package init(_ model: any LanguageModel) { self.model = model }

    /// Why an adapter is of no use, in the words of `peft verify`; `nil` if it changes something.
    /// - Parameters:
    ///   - adapter: the adapter, attached to the model and inactive.
    ///   - folder: its folder.
    ///   - active: calls its argument while the adapter is active.
    /// - Throws: ``PEFTError`` if the folder can't be read.
    package func refusal(
        of adapter: Adapter, in folder: AdapterFolder, active: (() throws -> [Tensor]) throws -> [Tensor]
    ) throws -> String? {
        // The base has no logits of a vocabulary that the adapter brings.
        guard adapter.vocabulary == nil, let sample = try? sample(beginningWith: adapter.sampleTokens),
            let logits = try? active({ try AdapterCheck.scores(model, [sample.batch]) })
        else { return nil }
        let largest = try AdapterCheck.effect(sample.logits, logits).largest
        guard largest == 0 || !largest.isFinite else { return nil }
        return try AdapterCheck(folder, on: model, batches: [sample.batch]).refusal
    }

    private func sample(beginningWith first: [Int]) throws -> Sample {
        if let known = samples[first] { return known }
        let size = model.vocabularySize
        let tokens = first + (1...4).map { $0 * 7919 % max(1, size) }
        // A decoder's queries and keys change nothing where it sees one token only.
        let row = TrainingRow(
            input: tokens, target: model.generates ? Array(tokens.suffix(3)) : tokens.map { _ in 0 })
        let batch = model.batch([row], device: model.device)
        let sample = Sample(batch: batch, logits: try AdapterCheck.scores(model, [batch]))
        // A few invocations and sets of tokens; not one of each adapter that was ever loaded.
        if samples.count >= 16 { samples = [:] }
        samples[first] = sample
        return sample
    }
}

extension Adapter {
    /// Tokens that show what the adapter does, if others may not: its invocation, and some of those that it trains.
    fileprivate var sampleTokens: [Int] {
        invocation + attached.flatMap { ($0.adapter as? TokenRows)?.tokens.prefix(4) ?? [] }
    }
}
