import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers

/// `peft generate --json-schema` and `--json-object`: texts that are JSON.
extension Generate {
    /// What the options require of the text.
    func responseFormat() throws -> ResponseFormat? {
        guard jsonSchema != nil || jsonObject else { return nil }
        guard generation.beams ?? 1 == 1 else {
            throw UsageError("beam search can't be constrained to JSON", remedy: "use --beams 1")
        }
        guard let jsonSchema else { return .jsonObject }
        guard !jsonObject else {
            throw UsageError("--json-schema and --json-object are mutually exclusive", remedy: "use one of them")
        }
        let path = NSString(string: jsonSchema).expandingTildeInPath
        guard let text = FileManager.default.contents(atPath: path) else {
            throw PEFTError("can't read \(jsonSchema)", remedy: "check that the file exists and is readable")
        }
        return try ResponseFormat.schema(text, name: jsonSchema)
    }

    /// The constraint of all texts; `nil` without one of the options.
    /// - Parameter endTokens: end tokens besides the model's.
    func constraint(
        _ model: any LanguageModel, _ tokenizer: Tokenizer, _ settings: GenerationSettings, endTokens: [Int?]
    ) throws -> JSONConstraint? {
        guard let format = try responseFormat() else { return nil }
        guard settings.beams == 1 else {
            throw UsageError("beam search can't be constrained to JSON", remedy: "use --beams 1")
        }
        let vocabulary = try ConstraintVocabulary(
            tokenizer, size: model.vocabularySize, endTokens: settings.endTokens.union(endTokens.compactMap { $0 }))
        return try JSONConstraint(format, vocabulary)
    }

    /// Says how many texts were cut off before their JSON was complete.
    func noteIncompleteJSON(_ texts: [String]) {
        guard jsonObject || jsonSchema != nil else { return }
        let count = texts.count { (try? JSON.parse(Data($0.utf8), name: "a text")) == nil }
        guard count > 0 else { return }
        Console.note(
            "the JSON of \(counted(count, "text")) is incomplete, as the maximum length was reached; raise --max-new-tokens"
        )
    }
}
