import Foundation

/// The beams of one prompt, with the rules of transformers' beam search.
struct BeamSearch {
    struct Candidate {
        /// Sum of log-probabilities.
        var score: Double
        /// The beam that this candidate continues.
        var beam: Int
        var token: Int
    }

    private let beams: Int
    private let lengthPenalty: Double
    private let earlyStopping: EarlyStopping
    /// Maximum number of new tokens.
    private let most: Int
    private let endTokens: Set<Int>
    private(set) var running: [[Int]]
    private(set) var runningScores: [Double]
    private var finished: [(tokens: [Int], score: Double)] = []
    private(set) var isDone = false
    /// For each running beam, the beam that it continues; and its last token.
    private(set) var sources: [Int] = []
    private(set) var tokens: [Int] = []

    init(_ settings: GenerationSettings, most: Int) {
        (beams, endTokens, self.most) = (settings.beams, settings.endTokens, most)
        (lengthPenalty, earlyStopping) = (settings.lengthPenalty, settings.earlyStopping)
        running = [[Int]](repeating: [], count: beams)
        // All beams start identical, so only the first counts at the first step.
        runningScores = [0] + [Double](repeating: -1e9, count: beams - 1)
    }

    /// Advances with the best continuations of all beams, best first.
    mutating func advance(_ candidates: [Candidate]) {
        let length = (running.first?.count ?? 0) + 1
        let isLast = length == most
        var next: [Candidate] = []
        for (rank, candidate) in candidates.enumerated() {
            guard endTokens.contains(candidate.token) || isLast else {
                if next.count < beams { next.append(candidate) }
                continue
            }
            // An end token ranked below the best `beams` candidates is ignored, as better beams still run.
            guard rank < beams, !(earlyStopping == .whenComplete && finished.count == beams) else { continue }
            let score = candidate.score / power(length)
            finished.append((running[candidate.beam] + [candidate.token], score))
            // A stable sort: of equal scores the earlier one stays ahead.
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
        // The best score that a running beam can reach, at its current length or the longest that the length penalty
        // favors.
        let hoped = earlyStopping == .never && lengthPenalty > 0 ? most : length
        isDone = earlyStopping == .whenComplete || runningScores[0] / power(hoped) <= worst
    }

    private func power(_ length: Int) -> Double { pow(Double(length), lengthPenalty) }

    /// The best sequence, including its end token.
    var best: [Int] { finished.first?.tokens ?? running.first ?? [] }
}
