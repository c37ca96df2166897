import LanguageModels
import PEFT
import PEFTSupport
import Torch
import TorchNN
import Training

/// Times a model per generated token, or per example for models with a head, at batch size 1.
struct InferenceTiming {
    /// Token ids of a few prompts.
    let prompts: [[Int]]
    /// Tokens generated per prompt, so many that the prefill hardly counts.
    var tokens = 32
    var rounds = 7

    /// The median over rounds, in milliseconds, after a warm-up round.
    func milliseconds(_ model: any LanguageModel) throws -> Double {
        try median((0...rounds).map { try time(model, round: $0) }.dropFirst()) ?? .nan
    }

    /// The ratio of a model's time to the base model's.
    ///
    /// The two alternate on the same prompts, each first in every other round, and the result is the median of the rounds'
    /// ratios: temporary slowdowns of the machine affect both and cancel.
    func ratio(of model: any LanguageModel, to base: any LanguageModel) throws -> (ratio: Double, base: Double) {
        try compare(rounds: rounds) { isBase, round in try time(isBase ? base : model, round: round) }
    }

    /// - Parameter time: times the base model or the other one in a round; round 0 is for warm-up.
    func compare(rounds: Int, time: (_ isBase: Bool, _ round: Int) throws -> Double) rethrows -> (
        ratio: Double, base: Double
    ) {
        let pairs = try (0...rounds).map { round -> (base: Double, other: Double) in
            if round.isMultiple(of: 2) {
                let base = try time(true, round)
                return (base, try time(false, round))
            }
            let other = try time(false, round)
            return (try time(true, round), other)
        }.dropFirst()
        return (median(pairs.map { $0.other / $0.base }) ?? .nan, median(pairs.map(\.base)) ?? .nan)
    }

    /// Greedy decoding of one prompt, or three forward passes of it.
    private func time(_ model: any LanguageModel, round: Int) throws -> Double {
        guard !prompts.isEmpty else { return .nan }
        let prompt = prompts[round % prompts.count]
        let units = model.generates ? tokens : 3
        let start = ContinuousClock.now
        var made = units
        if model.generates {
            var parameters = GenerateParameters(maxNewTokens: tokens, minNewTokens: tokens)
            parameters.ignoresModelSettings = true
            // Fewer where the model's positions end.
            made = max(1, try Generator(model, parameters).generate([prompt]).first?.count ?? 0)
        } else {
            try withTorchErrors {
                withoutGradients {
                    for _ in 0..<units {
                        let batch = model.batch([(prompt, [0])], device: model.device)
                        _ = model.computing { model.logits(batch) }.sum().item()
                    }
                }
            }
        }
        return start.duration(to: .now).inSeconds * 1e3 / Double(made)
    }
}

extension Comparison {
    func inferenceTiming() -> InferenceTiming {
        InferenceTiming(prompts: rows.prompts)
    }

    /// The inference time of a trained adapter, unmerged and merged.
    func inference(_ adapter: Adapter) throws -> MethodRun.Inference {
        let timing = inferenceTiming()
        guard adapter.addedCount > 0 else {
            // Only the weights' values differ: the computation is the base model's.
            let time = try timing.milliseconds(adapter.model)
            var inference = MethodRun.Inference(unmerged: time, merged: time, largestDifference: nil)
            inference.base = time
            return inference
        }
        let base = try folder.load(device: plan.device)
        let (unmerged, time) = try timing.ratio(of: adapter.model, to: base)
        var inference = MethodRun.Inference(
            unmerged: unmerged * time, merged: unmerged * time, largestDifference: nil)
        inference.base = time
        inference.isMergeable = false
        guard adapter.choice.isMergeable else { return inference }
        let batch = adapter.model.batch(rows.firstOfTest)
        func logits() throws -> Tensor {
            try withTorchErrors {
                withoutGradients { adapter.model.computing { adapter.model.logits(batch) }.to(.float32) }
            }
        }
        let before = try logits()
        // A part of it may not be mergeable, such as an adapter on a tied embedding.
        do { try adapter.merge() } catch is PEFTError { return inference }
        let after = try logits()
        inference.merged = try timing.ratio(of: adapter.model, to: base).ratio * time
        try adapter.unmerge()
        inference.largestDifference = try withTorchErrors { (before - after).abs().max().item() }
        inference.isMergeable = nil
        return inference
    }
}

extension ComparisonReport {
    /// Normalizes all runs to the same base-model time, so that their milliseconds differ by their ratios and not by the
    /// load of the machine.
    mutating func bringInferenceToOneBase() {
        let alone = runs.first { $0.isBase && $0.inference?.base == nil }?.inference?.merged
        guard let common = alone ?? median(runs.compactMap { $0.inference?.base }), common > 0 else { return }
        for index in runs.indices {
            guard let own = runs[index].inference?.base, own > 0 else { continue }
            runs[index].inference?.unmerged *= common / own
            runs[index].inference?.merged *= common / own
            runs[index].inference?.base = common
        }
    }
}

func median(_ values: some Collection<Double>) -> Double? {
    guard !values.isEmpty else { return nil }
    let sorted = values.sorted()
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}
