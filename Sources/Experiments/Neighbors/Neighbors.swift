import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Torch
import TorchNN

/// The nearest neighbors of a soft prompt (Lester et al. 2021, section 7): for each virtual token the nearest entries of
/// the vocabulary, and whether these form a cluster.
package struct Neighbors {
    package struct Options: Sendable {
        /// Neighbors listed per virtual token.
        package var count = 5
        /// Words that name the task, to be highlighted.
        package var taskWords: [String] = []
        /// Random groups of words that the clustering is compared with.
        package var samples = 200
        package var seed: UInt64 = 0

        package init() {}
    }

    private let adapter: Adapter
    private let tokenizer: Tokenizer
    private let options: Options

    package init(_ adapter: Adapter, tokenizer: Tokenizer, options: Options = Options()) {
        (self.adapter, self.tokenizer, self.options) = (adapter, tokenizer, options)
    }

    /// - Throws: ``PEFTError`` for an adapter without virtual tokens among the embeddings.
    package func report(name: String, model modelName: String) throws -> NeighborsReport {
        guard let prompt = adapter.storedTensors()["prompt_embeddings"],
            adapter.attached.contains(where: { $0.site is InputSite })
        else {
            throw PEFTError(
                "\(adapter.choice.label) has no virtual tokens among the input embeddings",
                remedy: "use an adapter of prompt tuning or P-tuning")
        }
        let model = adapter.model
        guard
            let table = model.namedModules().first(where: { $0.path == model.inputEmbedding })?.module as? Embedding
        else { throw PEFTError("this \(model.family) model has no input-embedding table") }
        return try withTorchErrors {
            try withoutGradients {
                // Scaled as the layers see it.
                let vocabulary = table.weight.dense(as: .float32).to(.cpu) * model.embeddingScale
                guard vocabulary.dim(1) == prompt.dim(1) else {
                    throw PEFTError(
                        "the virtual tokens have \(prompt.dim(1)) dimensions, but the model's embeddings have \(vocabulary.dim(1))",
                        remedy: "use the model that the adapter was trained with")
                }
                let initial = try untrained()
                return try report(
                    prompt: prompt.to(.cpu).to(.float32), initial: initial, vocabulary: vocabulary, name: name,
                    model: modelName)
            }
        }
    }

    /// The prompt before training, where the configuration reproduces it.
    private func untrained() throws -> Tensor? {
        guard adapter.isRemovable else { return nil }
        let wasActive = adapter.isActive
        if wasActive { try adapter.deactivate() }
        defer { if wasActive { adapter.activate() } }
        guard
            let fresh = try? Adapter(
                adapter.choice, on: adapter.model, name: "untrained", seed: options.seed, tokenizer: tokenizer)
        else { return nil }
        let prompt = fresh.storedTensors()["prompt_embeddings"]?.clone()
        try fresh.deactivate()
        return prompt?.to(.cpu).to(.float32)
    }

    private func report(prompt: Tensor, initial: Tensor?, vocabulary: Tensor, name: String, model: String) throws
        -> NeighborsReport
    {
        // Ids beyond the tokenizer's are padding of the table: they were never trained.
        let used = min(vocabulary.dim(0), tokenizer.vocabularySize)
        let words = vocabulary.narrowed(axis: 0, 0..<used)
        let unit = normalized(words)
        // The clustering is that of five words, however many are listed.
        let count = min(options.count, used)
        let groupSize = min(5, used)
        let cosines = normalized(prompt).matmul(unit.T)
        // ‖p − w‖² = ‖p‖² + ‖w‖² − 2 p·w, without a tensor of all differences.
        let squares =
            prompt.squared().sum(axes: [1], keep: true) + words.squared().sum(axes: [1]).unsqueezed(0)
            - prompt.matmul(words.T) * 2
        let byCosine = cosines.topK(max(count, groupSize))
        let byDistance = (-squares).topK(count)
        let cosineIDs = rows(byCosine.indices), distanceIDs = rows(byDistance.indices)
        let cosineValues = rows(byCosine.values), distanceValues = rows(byDistance.values)
        let groups = cosineIDs.map { $0.prefix(groupSize).map { Int($0) } }
        let clusters = groups.map { pairwise(unit, $0) }
        var random = SeededRandom(seed: options.seed, stream: 0x4E)
        let randomClusters = (0..<max(2, options.samples)).map { _ in
            pairwise(unit, (0..<groupSize).map { _ in random.below(used) })
        }
        let initialClusters = initial.map { prompt -> [Double] in
            let ids = rows(normalized(prompt).matmul(unit.T).topK(groupSize).indices)
            return ids.map { pairwise(unit, $0.map { Int($0) }) }
        }
        let places = try project(prompt, words, groups.map { Array($0.prefix(count)) })
        let submodules = adapter.attached.filter { $0.site is InputSite }.count
        let perSubmodule = prompt.dim(0) / max(1, submodules)
        func neighbor(_ id: Double, _ value: Double) -> NeighborsReport.Neighbor {
            let text = tokenizer.token(for: Int(id)) ?? "#\(Int(id))"
            return .init(id: Int(id), text: text, value: value, namesTask: isTaskWord(text))
        }
        let tokens = (0..<prompt.dim(0)).map { row in
            NeighborsReport.Token(
                name: submodules > 1 && row >= perSubmodule ? "decoder \(row - perSubmodule + 1)" : "\(row + 1)",
                cosine: zip(cosineIDs[row].prefix(count), cosineValues[row]).map { neighbor($0, $1) },
                distance: zip(distanceIDs[row], distanceValues[row]).map { neighbor($0, max(0, -$1).squareRoot()) },
                clustering: clusters[row], place: places.tokens[row], neighborPlaces: places.neighbors[row])
        }
        return NeighborsReport(
            version: Version.current, adapter: name, method: adapter.choice.label, model: model,
            taskWords: options.taskWords, tokens: tokens, clustering: Statistic(clusters),
            randomClustering: Statistic(randomClusters), untrainedClustering: initialClusters.map { Statistic($0) })
    }

    private func normalized(_ x: Tensor) -> Tensor {
        x / x.squared().sum(axes: [1], keep: true).sqrt().atLeast(1e-12)
    }

    private func rows(_ x: Tensor) -> [[Double]] {
        let values: [Double] = x.array()
        let width = max(1, x.dim(1))
        return stride(from: 0, to: values.count, by: width).map { Array(values[$0..<($0 + width)]) }
    }

    /// Mean cosine over the pairs of a group of unit vectors.
    private func pairwise(_ unit: Tensor, _ ids: [Int]) -> Double {
        guard ids.count > 1 else { return 1 }
        let group = unit.selecting(Tensor(ids))
        let sum = group.matmul(group.T).sum().item()
        return (sum - Double(ids.count)) / Double(ids.count * (ids.count - 1))
    }

    /// Coordinates of prompt and neighbors in the plane of their first two principal components.
    private func project(_ prompt: Tensor, _ words: Tensor, _ groups: [[Int]]) throws -> (
        tokens: [[Double]], neighbors: [[[Double]]]
    ) {
        let ids = Array(Set(groups.flatMap(\.self))).sorted()
        let all = Tensor.concatenated([normalized(prompt), normalized(words.selecting(Tensor(ids)))])
        let centered = all - all.mean(axes: [0], keep: true)
        let axes = centered.svd().vh
        let places = rows(centered.matmul(axes.narrowed(axis: 0, 0..<min(2, axes.dim(0))).T)).map {
            $0.count == 2 ? $0 : [$0.first ?? 0, 0]
        }
        let byID = Dictionary(uniqueKeysWithValues: ids.enumerated().map { ($1, places[prompt.dim(0) + $0]) })
        return (Array(places.prefix(prompt.dim(0))), groups.map { $0.compactMap { byID[$0] } })
    }

    private func isTaskWord(_ token: String) -> Bool {
        let text = Self.bare(token)
        guard text.count > 2 else { return false }
        return options.taskWords.contains { word in
            let word = word.lowercased()
            // A word piece such as "summar" of "▁summarize" counts as well.
            return word == text
                || (text.count >= 4 && (word.hasPrefix(text) || text.hasPrefix(word) && word.count >= 4))
        }
    }

    /// A vocabulary entry without the tokenizer's markers.
    static func bare(_ token: String) -> String {
        String(token.filter { $0.isLetter || $0.isNumber }).lowercased()
    }

    /// The words of templates that name a task: the text outside of fields, and the field names.
    package static func words(inTemplates templates: [String]) -> [String] {
        var seen: Set<String> = []
        return templates.flatMap { $0.split { !$0.isLetter } }.map { $0.lowercased() }
            .filter { $0.count > 2 && !common.contains($0) && seen.insert($0).inserted }
    }

    private static let common: Set = [
        "the", "and", "for", "with", "that", "this", "from", "are", "was", "into", "following", "your", "you",
    ]
}
