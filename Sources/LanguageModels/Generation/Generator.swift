import Foundation
import Support
import Torch
import TorchNN

/// Makes texts with a model, many prompts at a time.
public struct Generator {
    public let model: any LanguageModel
    public let parameters: GenerateParameters

    /// - Throws: ``PEFTError`` if a parameter is out of range.
    public init(_ model: any LanguageModel, _ parameters: GenerateParameters) throws {
        try parameters.validate()
        (self.model, self.parameters) = (model, parameters)
    }

    /// Continues every prompt; the end token is not part of a result.
    ///
    /// - Parameters:
    ///   - prompts: token ids.
    ///   - onToken: called with the prompt's index and each new token as it comes (not in beam search, whose
    ///     tokens are known at the end); returning `false` ends that prompt.
    public func generate(_ prompts: [[Int]], onToken: ((Int, Int) -> Bool)? = nil) throws -> [[Int]] {
        guard !prompts.isEmpty else { return [] }
        if let empty = prompts.firstIndex(where: \.isEmpty) {
            throw PEFTError("prompt \(empty + 1) has no tokens", remedy: "give it some text")
        }
        return try withTorchErrors {
            try withoutGradients {
                try model.computing {
                    parameters.beams > 1 ? try beamSearch(prompts) : try continueEach(prompts, onToken)
                }
            }
        }
    }

    /// - Returns: the state, the token that each row's first step feeds, and what each text begins with.
    private func start(_ prompts: [[Int]]) throws -> (state: any DecodingState, first: [Int], before: [[Int]]) {
        guard model.writes else {
            throw PEFTError(
                "this \(model.family) model only encodes and can't generate",
                remedy: "use peft evaluate for its classes")
        }
        let read: [[Int]]
        let first: [Int]
        if let start = model.generationDefaults.startToken {
            (read, first) = (prompts, prompts.map { _ in start })
        } else {
            // What is read first lacks its last token, which the first step feeds.
            (read, first) = (prompts.map { Array($0.dropLast()) }, prompts.compactMap(\.last))
        }
        let packed = PackedSequences(read, device: model.device)
        let state = model.startDecoding(packed, capacity: parameters.maxNewTokens, beams: parameters.beams)
        try checkTorchErrors()
        return (state, first, model.architecture == .decoder ? prompts : first.map { [$0] })
    }

    // MARK: Greedy and sampling

    private func continueEach(_ prompts: [[Int]], _ onToken: ((Int, Int) -> Bool)?) throws -> [[Int]] {
        let (state, first, before) = try start(prompts)
        let ends = model.generationDefaults.endTokens
        let device = model.device
        var random = SeededRandom(seed: parameters.seed)
        var results = [[Int]](repeating: [], count: prompts.count)
        var open = Array(prompts.indices)
        var tokens = Tensor(first, device: device)
        for _ in 0..<parameters.maxNewTokens {
            let scores = state.step(tokens)
            try checkTorchErrors()
            TokenBlock.apply(
                parameters, to: scores, histories: open.map { results[$0] }, before: open.map { before[$0] },
                endTokens: ends)
            let next = choose(scores, &random)
            let ids: [Int] = next.array()
            guard ids.count == open.count else { break }
            var kept: [Int] = []
            for (row, id) in ids.enumerated() where !ends.contains(id) {
                results[open[row]].append(id)
                if onToken?(open[row], id) ?? true { kept.append(row) }
            }
            if kept.isEmpty { break }
            if kept.count == open.count {
                tokens = next
            } else {
                // Rows that are done cost nothing more.
                state.keep(rows: kept)
                open = kept.map { open[$0] }
                tokens = Tensor(kept.map { ids[$0] }, device: device)
            }
        }
        return results
    }

    /// One token per row of scores [rows, vocabulary].
    private func choose(_ scores: Tensor, _ random: inout SeededRandom) -> Tensor {
        guard parameters.temperature > 0 else { return scores.argmax(axis: -1) }
        var scores = scores.to(.float32) / parameters.temperature
        let vocabulary = scores.dim(-1)
        guard parameters.topK > 0 || parameters.topP < 1 else { return scores.softmax().sampled(from: &random) }
        let count = parameters.topK > 0 ? min(parameters.topK, vocabulary) : vocabulary
        let (values, indices) = scores.topK(count)
        scores = values
        if parameters.topP < 1 {
            let probabilities = scores.softmax()
            // A token stays while those before it have less than topP together, so the first always stays.
            let before = probabilities.cumulativeSum(axis: -1) - probabilities
            let dropped = Tensor.full(scores.shape, -.infinity, device: scores.device)
            scores = scores.selecting(where: before.less(than: parameters.topP), else: dropped)
        }
        let choice = scores.softmax().sampled(from: &random)
        return indices.gathering(axis: 1, choice.unsqueezed(1)).reshaped(-1)
    }

    // MARK: Beam search

    private func beamSearch(_ prompts: [[Int]]) throws -> [[Int]] {
        let (state, first, before) = try start(prompts)
        let defaults = model.generationDefaults
        let device = model.device
        let beams = parameters.beams
        // With more end tokens, more candidates are needed so that `beams` of them can go on.
        let candidates = max(2, 1 + defaults.endTokens.count) * beams
        var searches = prompts.map { _ in BeamSearch(parameters, endTokens: defaults.endTokens) }
        var open = Array(prompts.indices)
        var tokens = Tensor(first.flatMap { Array(repeating: $0, count: beams) }, device: device)
        for position in 0..<parameters.maxNewTokens {
            let logProbabilities = state.step(tokens).to(.float32).logSoftmax()
            try checkTorchErrors()
            TokenBlock.apply(
                parameters, to: logProbabilities, histories: open.flatMap { searches[$0].running },
                before: open.flatMap { Array(repeating: before[$0], count: beams) },
                endTokens: defaults.endTokens)
            let vocabulary = logProbabilities.dim(-1)
            let scores = Tensor(open.flatMap { searches[$0].runningScores.map(Float.init) }, device: device)
            let totals = (logProbabilities + scores.unsqueezed(1)).reshaped(open.count, -1)
            let (values, indices) = totals.topK(min(candidates, beams * vocabulary))
            let topValues: [Float] = values.array()
            let topIndices: [Int] = indices.array()
            let count = values.dim(1)
            guard count > 0 else { break }
            var kept: [Int] = []
            var sources: [Int] = []
            var nextTokens: [Int] = []
            for (row, prompt) in open.enumerated() {
                let found = (row * count..<(row + 1) * count).map { i in
                    BeamSearch.Candidate(
                        score: Double(topValues[i]), beam: topIndices[i] / vocabulary,
                        token: topIndices[i] % vocabulary)
                }
                searches[prompt].advance(found, isLast: position + 1 == parameters.maxNewTokens)
                if searches[prompt].isDone { continue }
                sources += searches[prompt].sources.map { kept.count * beams + $0 }
                nextTokens += searches[prompt].tokens
                kept.append(row)
            }
            if kept.isEmpty { break }
            if kept.count < open.count {
                state.keep(rows: kept)
                open = kept.map { open[$0] }
            }
            state.reorder(Tensor(sources, device: device))
            tokens = Tensor(nextTokens, device: device)
        }
        return searches.map { search in
            Array(search.best.prefix { !defaults.endTokens.contains($0) })
        }
    }
}

/// One prompt's beams, with the rules of transformers' beam search.
struct BeamSearch {
    struct Candidate {
        /// Sum of log-probabilities.
        var score: Double
        /// The beam it continues.
        var beam: Int
        var token: Int
    }

    private let beams: Int
    private let lengthPenalty: Double
    private let earlyStopping: Bool
    private let endTokens: Set<Int>
    private(set) var running: [[Int]]
    private(set) var runningScores: [Double]
    private var finished: [(tokens: [Int], score: Double)] = []
    private(set) var isDone = false
    /// The beam that each running one continues, and its last token.
    private(set) var sources: [Int] = []
    private(set) var tokens: [Int] = []

    init(_ parameters: GenerateParameters, endTokens: Set<Int>) {
        beams = parameters.beams
        lengthPenalty = parameters.lengthPenalty
        earlyStopping = parameters.earlyStopping
        self.endTokens = endTokens
        running = [[Int]](repeating: [], count: beams)
        // All beams start equal: only the first counts at the first step.
        runningScores = [0] + [Double](repeating: -1e9, count: beams - 1)
    }

    /// Takes the best continuations of all beams, best first.
    mutating func advance(_ candidates: [Candidate], isLast: Bool) {
        let length = (running.first?.count ?? 0) + 1
        var next: [Candidate] = []
        for (rank, candidate) in candidates.enumerated() {
            guard endTokens.contains(candidate.token) || isLast else {
                if next.count < beams { next.append(candidate) }
                continue
            }
            // An end that ranks below the best `beams` is not taken: something better still runs.
            guard rank < beams, !(earlyStopping && finished.count == beams) else { continue }
            let score = candidate.score / power(length)
            finished.append((running[candidate.beam] + [candidate.token], score))
            // A stable sort: of equal scores the earlier stays ahead.
            finished = finished.enumerated()
                .sorted {
                    $0.element.score == $1.element.score ? $0.offset < $1.offset : $0.element.score > $1.element.score
                }
                .prefix(beams).map(\.element)
        }
        if isLast || next.isEmpty {
            isDone = true
            return
        }
        running = next.map { running[$0.beam] + [$0.token] }
        runningScores = next.map(\.score)
        (sources, tokens) = (next.map(\.beam), next.map(\.token))
        guard finished.count == beams, let worst = finished.last?.score else { return }
        isDone = earlyStopping || (runningScores[0] / power(length)) <= worst
    }

    private func power(_ length: Int) -> Double { pow(Double(length), lengthPenalty) }

    /// The best text, its end token included.
    var best: [Int] { finished.first?.tokens ?? running.first ?? [] }
}
