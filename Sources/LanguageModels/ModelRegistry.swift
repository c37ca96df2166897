import Foundation
import Support
import Torch
import TorchNN

/// The families of models, by `model_type`. A new one is a file in `Models/` and a line here.
public enum ModelRegistry {
    static let families: [String: @Sendable (JSON) throws -> any LanguageModel] = [
        "t5": { try T5(T5Configuration($0)) },
        "llama": { try Llama(LlamaConfiguration($0)) }, "mistral": { try Llama(LlamaConfiguration($0)) },
        "qwen2": { try Llama(LlamaConfiguration($0)) }, "qwen3": { try Llama(LlamaConfiguration($0)) },
        "gpt2": { try GPT2(GPT2Configuration($0)) },
    ]

    /// The families that read and don't write, with a head for their task.
    static let encoders: [String: @Sendable (JSON, ModelHead) throws -> any LanguageModel] = [
        "bert": { try BERT(BERTConfiguration($0), head: $1) },
        "roberta": { try RoBERTa(BERTConfiguration($0), head: $1) },
        "xlm-roberta": { try RoBERTa(BERTConfiguration($0), head: $1) },
        "distilbert": { try DistilBERT(DistilBERTConfiguration($0), head: $1) },
    ]

    /// Whether models of this `model_type` read and don't write.
    public static func isEncoder(_ family: String) -> Bool { encoders[family] != nil }

    /// A model without weights, on the meta device: it can be counted and planned.
    ///
    /// - Parameter head: what it is for, where that isn't what the configuration says.
    /// - Throws: ``PEFTError`` for a configuration without `model_type` or of a family that isn't supported, and for a
    ///   task that the family can't do.
    public static func outline(_ configuration: JSON, file: String, head: ModelHead? = nil) throws
        -> any LanguageModel
    {
        let known = Set(families.keys).union(encoders.keys).sorted().joined(separator: ", ")
        guard let family = configuration["model_type"]?.string else {
            throw PEFTError(
                "\(file) has no 'model_type'",
                remedy: "supported are: \(known)")
        }
        let head = head ?? ModelHead(configuration: configuration)
        if let make = encoders[family] {
            let head = head ?? ModelHead(sequence: configuration)
            guard !head.task.writes else {
                throw PEFTError(
                    "a \(family) model can't do the task \(head.task.rawValue): it reads and doesn't write",
                    remedy: "it can classify, score or embed rows, and classify their words")
            }
            return try make(configuration.with(head), head)
        }
        guard let make = families[family] else {
            throw PEFTError(
                "\(file) asks for the model type '\(family)', which is not supported",
                remedy: "supported are: \(known)")
        }
        guard let head, !head.task.writes else {
            let model = try make(configuration)
            guard let head, head.task != model.head.task else { return model }
            throw PEFTError(
                "a \(family) model can't do the task \(head.task.rawValue)",
                remedy: "its task is \(model.head.task.rawValue)")
        }
        return try classifier(configuration, head: head, make)
    }

    /// A decoder-only model with a head over its last token.
    private static func classifier(
        _ configuration: JSON, head: ModelHead, _ make: (JSON) throws -> any LanguageModel
    ) throws -> any LanguageModel {
        var fields = configuration.object ?? [:]
        // A tied output layer is no layer of its own.
        fields["tie_word_embeddings"] = true
        let base = try make(.object(fields))
        guard head.task.scoresRows, let base = base as? any CausalModel,
            let size = base.parameters().first(where: { $0.path == base.inputEmbedding + ".weight" })?.parameter
                .tensor
                .dim(1)
        else {
            throw PEFTError(
                "a \(base.family) model can't do the task \(head.task.rawValue)",
                remedy: base is any CausalModel
                    ? "it can go on with texts, and classify or score them" : "it writes a target for each prompt")
        }
        return CausalClassifier(base, size: size, head: head, configuration: configuration.with(head))
    }
}

/// Reads one kind of configuration, with errors that name the key.
struct ConfigurationReader {
    let json: JSON

    func integer(_ key: String, default fallback: Int? = nil, in range: ClosedRange<Int> = 1...1_000_000_000) throws
        -> Int
    {
        guard let value = json[key], value != .null else {
            if let fallback { return fallback }
            throw PEFTError("config.json has no '\(key)'", remedy: "it has to be an integer")
        }
        guard let number = value.int, range.contains(number) else {
            throw PEFTError(
                "config.json: '\(key)' is \(value.text(indent: nil))",
                remedy: "it has to be an integer of at least \(range.lowerBound)")
        }
        return number
    }

    func number(_ key: String, default fallback: Double) throws -> Double {
        guard let value = json[key], value != .null else { return fallback }
        guard let number = value.double else {
            throw PEFTError("config.json: '\(key)' is \(value.text(indent: nil))", remedy: "it has to be a number")
        }
        return number
    }

    func boolean(_ key: String, default fallback: Bool) throws -> Bool {
        guard let value = json[key], value != .null else { return fallback }
        guard let flag = value.bool else {
            throw PEFTError(
                "config.json: '\(key)' is \(value.text(indent: nil))", remedy: "it has to be true or false")
        }
        return flag
    }

    func string(_ key: String, default fallback: String) throws -> String {
        guard let value = json[key], value != .null else { return fallback }
        guard let text = value.string else {
            throw PEFTError("config.json: '\(key)' is \(value.text(indent: nil))", remedy: "it has to be a string")
        }
        return text
    }

    /// One id or a list of them.
    func tokens(_ key: String, default fallback: [Int]) throws -> [Int] {
        guard let value = json[key], value != .null else { return fallback }
        if let one = value.int { return [one] }
        guard let list = value.array?.compactMap(\.int), list.count == value.array?.count else {
            throw PEFTError(
                "config.json: '\(key)' is \(value.text(indent: nil))",
                remedy: "it has to be a token id or a list of them")
        }
        return list
    }
}
