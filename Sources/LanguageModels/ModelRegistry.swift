import Foundation
import PEFTSupport
import Torch
import TorchNN

/// The supported model families. To add one, add a file in `Models/` and its name here (see CONTRIBUTING.md).
package enum ModelRegistry {
    /// In the order in which errors list those that GGUF files have.
    static let families: [ModelFamily] = [
        .t5, .mt5, .llama, .mistral, .qwen2, .qwen3, .gemma, .gemma2, .gemma3, .phi3, .gpt2, .bert, .roberta,
        .xlmRoBERTa, .distilbert, .modernBERT, .electra, .albert, .mpnet, .xlmRoBERTaXL, .debertaV2, .nomicBERT,
        .bart, .mBART, .pegasus, .marian, .m2m100, .umt5,
        .arcee, .seedOSS, .granite, .smolLM3, .olmo2, .olmo3, .ernie4_5, .hunyuan, .glm4, .cohere2, .ministral3,
        .gemma3Vision, .gemma4, .gemma4Multimodal, .gemma3n,
        .gemma3nMultimodal, .mistral3, .qwen2_5VL, .qwen3VL,
        .mixtral, .qwen2MoE, .qwen3MoE, .olmoe, .graniteMoE, .glm4MoE, .deepSeekV2,
        .deepSeekV3, .llama4, .gptOSS,
        .qwen3_5Text, .qwen3_5, .qwen3_5MoEText, .qwen3_5MoE, .qwen3Next, .lfm2, .lfm2MoE,
        .graniteMoEHybrid, .falconH1, .nemotronH,
        .gptNeoX, .opt, .bloom, .phi, .stableLM, .starCoder2, .falcon, .gptJ,
    ]

    private static let byName = Dictionary(families.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })

    /// The family of a `config.json`; `nil` if it is not supported.
    static func family(of configuration: JSON) -> ModelFamily? {
        configuration["model_type"]?.string.flatMap { byName[$0] }
    }

    /// Whether models of this `model_type` are encoders.
    package static func isEncoder(_ family: String) -> Bool {
        if case .encoder = byName[family]?.constructor { true } else { false }
    }

    /// Why families that resemble supported ones are unsupported.
    private static let refusals: [String: String] = [
        "phimoe": "its router draws random numbers"
    ]

    /// Keys that change a model's computation and that no family supports.
    private static let foreignKeys: [(key: String, meaning: String)] =
        [
            ("quantization_config", "quantized weights"), ("vision_config", "a vision model"),
            ("audio_config", "an audio model"),
        ] + expertKeys.map { ($0, "a mixture of experts") }

    /// Keys of families whose layers have experts.
    static let expertKeys = ["num_local_experts", "num_experts", "n_routed_experts"]

    /// Creates a model on the meta device, which can be counted and planned.
    ///
    /// - Parameter head: the requested head, if it differs from the configuration.
    /// - Throws: ``PEFTError`` for a configuration without `model_type` or of an unsupported family, and for a task
    ///   that the family doesn't support.
    package static func outline(_ configuration: JSON, file: String, head: ModelHead? = nil) throws
        -> any LanguageModel
    {
        // libtorch rejects shapes whose sizes overflow.
        try withTorchErrors { try describe(configuration, file: file, head: head) }
    }

    private static func describe(_ configuration: JSON, file: String, head: ModelHead?) throws -> any LanguageModel {
        let known = byName.keys.sorted().joined(separator: ", ")
        guard let type = configuration["model_type"]?.string else {
            throw PEFTError(
                "\(file) has no 'model_type'",
                remedy: "supported types are \(known)")
        }
        guard let family = byName[type] else {
            let folder = URL(fileURLWithPath: file).deletingLastPathComponent()
            let nearest = NearestFamily(to: configuration, type: type, folder: folder)?.sentence ?? ""
            let reason = refusals[type].map { ": \($0)" } ?? nearest
            throw PEFTError(
                "\(file) has the model type '\(type)', which is not supported\(reason)",
                remedy: "supported types are \(known)")
        }
        let ignored =
            (family.modules.isPartOfMultimodal ? ["vision_config"] : [])
            + (family.modules.otherParts.contains("model.audio_tower.") ? ["audio_config"] : [])
            + (family.modules.experts == nil ? [] : expertKeys)
        try checkForeignKeys(configuration, file: file, type: type, except: Set(ignored))
        let head = head ?? ModelHead(configuration: configuration)
        switch family.constructor {
        case .encoder(let make):
            let head = head ?? ModelHead(sequence: configuration)
            guard !head.task.generates else {
                throw PEFTError(
                    "a \(type) model can't do the task \(head.task.rawValue): it is an encoder",
                    remedy: "use it for classification, regression, token classification or embeddings")
            }
            return try make(configuration.with(head), family, head)
        case .generator(let make):
            return try generator(configuration, family, head: head, make)
        }
    }

    /// - Throws: ``PEFTError`` for a key that changes a model's computation and that no family supports.
    static func checkForeignKeys(_ configuration: JSON, file: String, type: String, except: Set<String> = []) throws {
        for (key, meaning) in foreignKeys where configuration[key] ?? .null != .null && !except.contains(key) {
            throw PEFTError(
                "\(file) has '\(key)' (\(meaning)), which is not supported",
                remedy: "use a '\(type)' model without it")
        }
    }

    private static func generator(
        _ configuration: JSON, _ family: ModelFamily, head: ModelHead?,
        _ make: (JSON, ModelFamily) throws -> any LanguageModel
    ) throws -> any LanguageModel {
        guard let head, !head.task.generates else {
            let model = try make(configuration, family)
            if let model = model as? any CausalModel, model.untiedOutputHasBias, model.outputProjection == nil {
                throw PEFTError(
                    "config.json: 'tie_word_embeddings' is true, but the output layer of a \(family.name) model has a bias,"
                        + " which is not supported in a tied one",
                    remedy: "save the model with an output layer of its own")
            }
            guard let head, head.task != model.head.task else { return model }
            throw PEFTError(
                "a \(family.name) model can't do the task \(head.task.rawValue)",
                remedy: "use the task \(model.head.task.rawValue)")
        }
        guard !family.modules.isPartOfMultimodal else {
            throw PEFTError(
                "a \(family.name) model can't do the task \(head.task.rawValue)",
                remedy: "use it for text generation")
        }
        if head.task == .embeddings { return try embedder(configuration, head: head) { try make($0, family) } }
        return try classifier(configuration, head: head) { try make($0, family) }
    }

    /// A decoder-only model without its output layer.
    private static func embedder(
        _ configuration: JSON, head: ModelHead, _ make: (JSON) throws -> any LanguageModel
    ) throws -> any LanguageModel {
        var fields = configuration.object ?? [:]
        fields["tie_word_embeddings"] = true
        let isBidirectional = try bidirectional(&fields)
        let base = try make(.object(fields))
        guard let base = base as? any CausalModel else {
            throw PEFTError(
                "a \(base.family) model can't do the task \(head.task.rawValue)",
                remedy: "use it for sequence-to-sequence generation")
        }
        guard base.linearBiases == nil || !isBidirectional else {
            throw PEFTError(
                "config.json: 'use_bidirectional_attention' is true, which is not supported with linear biases",
                remedy: "use a causal model")
        }
        return CausalEmbedder(base, head: head, isCausal: !isBidirectional, configuration: configuration.with(head))
    }

    /// Whether attention is bidirectional, as in EmbeddingGemma, and the configuration of the causal model with the same
    /// windows: as in transformers, half of each window is on either side of a token.
    private static func bidirectional(_ fields: inout [String: JSON]) throws -> Bool {
        guard fields["model_type"] == "gemma3_text" else { return false }
        let read = ConfigurationReader(json: .object(fields))
        guard try read.boolean("use_bidirectional_attention", default: false) else { return false }
        fields["use_bidirectional_attention"] = nil
        fields["sliding_window"] = .integer(try read.integer("sliding_window", .length, default: 4096) / 2 + 1)
        return true
    }

    /// A decoder-only model with a classification head on the last token.
    private static func classifier(
        _ configuration: JSON, head: ModelHead, _ make: (JSON) throws -> any LanguageModel
    ) throws -> any LanguageModel {
        var fields = configuration.object ?? [:]
        // The base is created without an untied output layer.
        fields["tie_word_embeddings"] = true
        let base = try make(.object(fields))
        if head.task.scoresRows, let base = base as? BART, base.settings.variant.classifies {
            return BARTClassifier(base.settings, head: head, configuration: configuration.with(head))
        }
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
