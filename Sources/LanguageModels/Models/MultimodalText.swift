import Foundation
import PEFTSupport
import Torch

/// The text part of a multimodal model, which is trained and computed with alone. The other tensors of the file stay as
/// they are: they are not loaded, and written again with the model.
enum MultimodalText {
    /// Keys of transformers' multimodal classes that describe images, videos and sounds.
    static let irrelevantKeys: Set<String> = [
        "vision_config", "mm_tokens_per_image", "image_token_index", "boi_token_index", "eoi_token_index",
        "image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id", "projector_hidden_act",
        "vision_feature_layer", "multimodal_projector_bias", "spatial_merge_size", "audio_config", "boi_token_id",
        "eoi_token_id", "boa_token_id", "eoa_token_id", "eoa_token_index", "audio_token_id",
        "vision_soft_tokens_per_image", "audio_soft_tokens_per_image",
    ]

    /// The keys of the text part in a multimodal model's `config.json`.
    ///
    /// - Parameters:
    ///   - types: the `model_type`s of the text part that the family supports, first the default.
    ///   - defaults: the keys of a file without `text_config`.
    ///   - hasExperts: whether the text part's layers have experts.
    ///   - isTied: the default of `tie_word_embeddings`, which is a key of the whole model.
    /// - Throws: ``PEFTError`` for another type of text part, and for a key that isn't supported.
    static func configuration(
        of json: JSON, types: [String], defaults: [String: JSON] = [:], isTied: Bool, hasExperts: Bool = false
    ) throws -> JSON {
        let value = json["text_config"] ?? .null
        guard value == .null || value.object != nil else {
            throw PEFTError(
                "config.json: 'text_config' is \(value.text(indent: nil))",
                remedy: "use an object with the keys of the text model")
        }
        var fields = value.object ?? defaults
        let type = fields["model_type"]?.string ?? types[0]
        guard types.contains(type) else {
            throw PEFTError(
                "config.json: 'text_config' has the model type '\(type)', which is not supported in this model",
                remedy: "supported types are \(types.joined(separator: ", "))")
        }
        try ModelRegistry.checkForeignKeys(
            .object(fields), file: "config.json: 'text_config'", type: type,
            except: hasExperts ? Set(ModelRegistry.expertKeys) : [])
        // The text part's tie is that of the whole model, whatever its own key says.
        _ = try ConfigurationReader(json: .object(fields)).boolean("tie_word_embeddings", default: isTied)
        fields["model_type"] = .string(type)
        fields["tie_word_embeddings"] = .bool(
            try ConfigurationReader(json: json).boolean("tie_word_embeddings", default: isTied))
        if fields["eos_token_id"] ?? .null == .null { fields["eos_token_id"] = json["eos_token_id"] }
        return .object(fields)
    }
}

extension ModuleNames {
    /// Names of a model whose text part is below `model.language_model`.
    ///
    /// - Parameters:
    ///   - parts: names below `model` of the other parts.
    ///   - olderPrefixes: prefixes of text tensors in older files.
    static func textPart(
        besides parts: [String], olderPrefixes: [(old: String, new: String)], feedForward: Set<String> = ["mlp"],
        experts: ExpertNames? = nil
    ) -> ModuleNames {
        ModuleNames(
            prefix: "model.language_model", embedding: "embed_tokens", output: .projection("lm_head"),
            attention: ["self_attn"], feedForward: feedForward, unquantized: [],
            olderPrefixes: olderPrefixes + parts.map { ("\($0).", "model.\($0).") },
            otherParts: parts.map { "model.\($0)." }, experts: experts)
    }

    /// Names of models with a vision tower and a projector (LLaVA and its successors).
    static let visionTower = textPart(
        besides: ["vision_tower", "multi_modal_projector"],
        olderPrefixes: [
            ("language_model.lm_head.", "lm_head."), ("language_model.model.", "model.language_model."),
            ("language_model.", "model.language_model."),
        ])

    /// Names of Qwen's models with a vision encoder.
    static let qwenVision = textPart(
        besides: ["visual"],
        olderPrefixes: ["layers.", "embed_tokens.", "norm."].map { ("model." + $0, "model.language_model." + $0) })
}

extension LanguageModel {
    /// The tensors of the other parts of a multimodal model, as its folder has them; empty for a text model.
    /// - Throws: ``PEFTError`` if the folder is gone.
    func otherPartTensors() throws -> [String: Tensor] {
        guard modelFamily.modules.isPartOfMultimodal else { return [:] }
        guard let source, FileManager.default.fileExists(atPath: source.path) else {
            throw PEFTError(
                "the folder that the \(family) model was loaded from is gone, so its vision part can't be written",
                remedy: "keep the folder until the model is written")
        }
        return try ShardedTensors(folder: source).tensors(named: { modelFamily.modules.otherPart($0) })
    }
}
