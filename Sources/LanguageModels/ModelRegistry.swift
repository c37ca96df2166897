import Foundation
import Support
import Torch
import TorchNN

/// The supported model families, by `model_type`. To add one, add a file in `Models/` and a line here.
public enum ModelRegistry {
    static let families: [String: @Sendable (JSON) throws -> any LanguageModel] = [
        "t5": { try T5(T5Configuration($0)) }, "mt5": { try T5(T5Configuration($0)) },
        "llama": { try Llama(LlamaConfiguration($0)) }, "mistral": { try Llama(LlamaConfiguration($0)) },
        "qwen2": { try Llama(LlamaConfiguration($0)) }, "qwen3": { try Llama(LlamaConfiguration($0)) },
        "gemma": { try Gemma(GemmaConfiguration($0)) }, "gemma2": { try Gemma(GemmaConfiguration($0)) },
        "gemma3_text": { try Gemma(GemmaConfiguration($0)) }, "phi3": { try Phi3(Phi3Configuration($0)) },
        "gpt2": { try GPT2(GPT2Configuration($0)) },
    ]

    /// Encoder families, with a head for their task.
    static let encoders: [String: @Sendable (JSON, ModelHead) throws -> any LanguageModel] = [
        "bert": { try BERT(BERTConfiguration($0), head: $1) },
        "roberta": { try RoBERTa(BERTConfiguration($0), head: $1) },
        "xlm-roberta": { try RoBERTa(BERTConfiguration($0), head: $1) },
        "distilbert": { try DistilBERT(DistilBERTConfiguration($0), head: $1) },
    ]

    /// Whether models of this `model_type` are encoders.
    public static func isEncoder(_ family: String) -> Bool { encoders[family] != nil }

    /// Why families that resemble supported ones are unsupported.
    private static let refusals: [String: String] = [
        "umt5": "every layer has its own relative position bias, unlike mT5",
        "gemma3": "it is multimodal; its text model has the model type gemma3_text",
        "gemma3n": "its layers share key-value caches and per-layer embeddings",
        "mixtral": "it is a mixture of experts", "qwen2_moe": "it is a mixture of experts",
        "qwen3_moe": "it is a mixture of experts", "phimoe": "it is a mixture of experts",
        "gpt_oss": "it is a mixture of experts", "phi": "its layers differ from Phi-3's",
    ]

    /// Keys that change a model's computation and that no family supports.
    private static let foreignKeys: [(key: String, meaning: String)] = [
        ("quantization_config", "quantized weights"), ("vision_config", "a vision model"),
        ("audio_config", "an audio model"), ("num_local_experts", "a mixture of experts"),
        ("num_experts", "a mixture of experts"), ("n_routed_experts", "a mixture of experts"),
    ]

    /// Creates a model on the meta device, which can be counted and planned.
    ///
    /// - Parameter head: the requested head, if it differs from the configuration.
    /// - Throws: ``PEFTError`` for a configuration without `model_type` or of an unsupported family, and for a task
    ///   that the family doesn't support.
    public static func outline(_ configuration: JSON, file: String, head: ModelHead? = nil) throws
        -> any LanguageModel
    {
        // libtorch rejects shapes whose sizes overflow.
        try withTorchErrors { try describe(configuration, file: file, head: head) }
    }

    private static func describe(_ configuration: JSON, file: String, head: ModelHead?) throws -> any LanguageModel {
        let known = Set(families.keys).union(encoders.keys).sorted().joined(separator: ", ")
        guard let family = configuration["model_type"]?.string else {
            throw PEFTError(
                "\(file) has no 'model_type'",
                remedy: "supported types are \(known)")
        }
        let isKnown = families[family] != nil || encoders[family] != nil
        for (key, meaning) in foreignKeys where isKnown && configuration[key] ?? .null != .null {
            throw PEFTError(
                "\(file) has '\(key)' (\(meaning)), which is not supported",
                remedy: "use a '\(family)' model without it")
        }
        let head = head ?? ModelHead(configuration: configuration)
        if let make = encoders[family] {
            let head = head ?? ModelHead(sequence: configuration)
            guard !head.task.generates else {
                throw PEFTError(
                    "a \(family) model can't do the task \(head.task.rawValue): it is an encoder",
                    remedy: "use it for classification, regression, token classification or embeddings")
            }
            return try make(configuration.with(head), head)
        }
        guard let make = families[family] else {
            let reason = refusals[family].map { ": \($0)" } ?? ""
            throw PEFTError(
                "\(file) has the model type '\(family)', which is not supported\(reason)",
                remedy: "supported types are \(known)")
        }
        guard let head, !head.task.generates else {
            let model = try make(configuration)
            guard let head, head.task != model.head.task else { return model }
            throw PEFTError(
                "a \(family) model can't do the task \(head.task.rawValue)",
                remedy: "use the task \(model.head.task.rawValue)")
        }
        return try classifier(configuration, head: head, make)
    }

    /// A decoder-only model with a classification head on the last token.
    private static func classifier(
        _ configuration: JSON, head: ModelHead, _ make: (JSON) throws -> any LanguageModel
    ) throws -> any LanguageModel {
        var fields = configuration.object ?? [:]
        // The base is created without an untied output layer.
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
                    ? "use it for text generation, classification or regression"
                    : "use it for sequence-to-sequence generation")
        }
        return CausalClassifier(base, size: size, head: head, configuration: configuration.with(head))
    }
}
