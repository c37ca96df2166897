import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Training

/// Notes on standard error about a model's own settings and limits.
enum ModelNotes {
    /// Says which settings of `generation_config.json` apply.
    static func generation(_ parameters: GenerateParameters, for model: any LanguageModel) throws {
        guard model.generates, let note = try GenerationSettings(parameters, for: model).note else { return }
        Console.note(note)
    }

    /// Says that `--max-input` exceeds the model's limit.
    /// - Parameter maxInput: the option's value; `nil` prints nothing.
    static func input(_ maxInput: Int?, for model: any LanguageModel, _ tokenizer: Tokenizer, virtualTokens: Int = 0)
        throws
    {
        guard let maxInput,
            let note = try InputLimits(model, tokenizer, virtualTokens: virtualTokens).note(maxInputTokens: maxInput)
        else { return }
        Console.note(note)
    }

    /// Says how many texts ended at the model's position limit.
    static func lastPosition(_ count: Int, of model: any LanguageModel) {
        guard count > 0, let limit = model.positionLimit else { return }
        Console.note(
            "\(count == 1 ? "1 text ends" : "\(Console.grouped(count)) texts end") at the last of the model's \(limit) positions, before --max-new-tokens"
        )
    }
}
