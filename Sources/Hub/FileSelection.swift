import Foundation
import PEFTSupport

/// The files of a repository to download.
package struct FileSelection: Sendable {
    package enum Extent: Sendable {
        /// Configuration and tokenizer, without weights.
        case description
        /// Everything needed to run the model or adapter.
        case needed
        case all
    }

    package var extent: Extent
    /// Glob patterns; if given, they select from all files instead.
    package var includes: [String]
    package var excludes: [String]

    package init(_ extent: Extent = .needed, includes: [String] = [], excludes: [String] = []) {
        (self.extent, self.includes, self.excludes) = (extent, includes, excludes)
    }

    /// Configuration and tokenizer files.
    static let descriptions = [
        "config.json", "generation_config.json", "adapter_config.json", "training.json", "tokenizer.json",
        "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt",
        "merges.txt",
        "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "spm.model", "chat_template.jinja",
        "chat_template.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json",
    ]
    private static let describingPatterns = ["additional_chat_templates/*.jinja", "[0-9]*_*/config.json"]
        .map(Glob.init)
    /// Weights of a sentence-transformers model's layers after pooling.
    private static let layerPatterns = ["[0-9]*_Dense/model.safetensors", "[0-9]*_Dense/pytorch_model.bin"].map(
        Glob.init)
    /// Weight files by preference: whole or by index; pickles only if there are no safetensors.
    private static let weights = [
        ["adapter_model.safetensors", "adapter_model.bin"],
        [
            "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
        ],
    ]

    /// The initial files among the available ones, sorted; shards follow from their index.
    func first(of files: [String]) -> [String] {
        var chosen: Set<String>
        if !includes.isEmpty {
            let globs = includes.map(Glob.init)
            chosen = Set(files.filter { file in globs.contains { $0.matches(file) } })
        } else if extent == .all {
            chosen = Set(files)
        } else {
            chosen = Set(files).intersection(Self.descriptions)
            chosen.formUnion(files.filter { file in Self.describingPatterns.contains { $0.matches(file) } })
            if extent == .needed {
                chosen.formUnion(files.filter { file in Self.layerPatterns.contains { $0.matches(file) } })
                for kinds in Self.weights { chosen.formUnion(kinds.first { files.contains($0) }.map { [$0] } ?? []) }
            }
        }
        let excluded = excludes.map(Glob.init)
        return chosen.filter { file in !excluded.contains { $0.matches(file) } }.sorted()
    }

    /// The shards listed by a downloaded index.
    ///
    /// - Throws: ``PEFTError`` if the index is damaged or lists a missing file.
    func shards(of chosen: [String], in snapshot: URL, available: Set<String>, name: HubName) throws -> [String] {
        guard includes.isEmpty, extent == .needed else { return [] }
        let excluded = excludes.map(Glob.init)
        var shards: Set<String> = []
        for index in chosen where index.hasSuffix(".index.json") {
            guard let map = try JSON.read(snapshot.appendingPathComponent(index))["weight_map"]?.object else {
                throw PEFTError("\(index) of \(name) has no 'weight_map'", remedy: "download another revision")
            }
            for shard in Set(map.values.compactMap(\.string)).sorted() {
                guard available.contains(shard) else {
                    throw PEFTError(
                        "\(index) of \(name) lists the shard '\(shard)', which is not in the repository",
                        remedy: "download another revision")
                }
                if !excluded.contains(where: { $0.matches(shard) }) { shards.insert(shard) }
            }
        }
        return shards.sorted()
    }

    /// The common files that a repository lacks.
    static func absent(from files: Set<String>) -> [String] {
        (descriptions + weights.flatMap { $0 }).filter { !files.contains($0) }
    }
}
