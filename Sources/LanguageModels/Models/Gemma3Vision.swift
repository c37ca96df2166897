import PEFTSupport

extension ModelFamily {
    /// The text part of Gemma 3 with a vision tower.
    static let gemma3Vision = ModelFamily(
        name: "gemma3",
        constructor: .generator { json, family in
            let text = try MultimodalText.configuration(of: json, types: ["gemma3_text"], isTied: true)
            return try Gemma(GemmaConfiguration(json, text: text, version: 3, family: family))
        },
        modules: .visionTower, tokenTypes: .none,
        // Hugging Face has defaults for the text model only.
        adapterTargets: ModelFamily.gemma3.adapterTargets, gguf: .none)
}
