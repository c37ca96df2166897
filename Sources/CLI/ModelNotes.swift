import LanguageModels
import Support
import Tokenizers
import Training

/// What a command says on standard error about how a model's own settings and limits take effect.
enum ModelNotes {
    /// What of `generation_config.json` applies.
    static func generation(_ parameters: GenerateParameters, for model: any LanguageModel) throws {
        guard model.writes, let note = try GenerationSettings(parameters, for: model).note else { return }
        Console.note(note)
    }

    /// That the model reads fewer tokens than `--max-input` allows.
    /// - Parameter maxInput: what the user gave; `nil` says nothing.
    static func input(_ maxInput: Int?, for model: any LanguageModel, _ tokenizer: Tokenizer, virtualTokens: Int = 0)
        throws
    {
        guard let maxInput,
            let note = try InputLimits(model, tokenizer, virtualTokens: virtualTokens).note(maxInputTokens: maxInput)
        else { return }
        Console.note(note)
    }

    /// That texts end because the model has no further position.
    static func lastPosition(_ count: Int, of model: any LanguageModel) {
        guard count > 0, let limit = model.positionLimit else { return }
        Console.note(
            "\(count == 1 ? "1 text ends" : "\(Console.grouped(count)) texts end") at the last of the model's \(limit) positions, before --max-new-tokens"
        )
    }
}
