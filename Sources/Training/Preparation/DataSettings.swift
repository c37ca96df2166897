import LanguageModels
import PEFTSupport

/// How the rows of a dataset become examples, as far as the user says. The rest follows from the first row, the model, and
/// the settings that an adapter was trained with (``TrainingRecord``).
public struct DataSettings: Sendable {
    /// Template of the prompt, such as `Summarize: {dialogue}`.
    public var prompt: String?
    /// Template of the target, such as `{summary}`.
    public var target: String?
    /// Template of the second text of a pair to classify, or for embeddings of the positive text.
    public var pair: String?
    /// Template of a hard negative, for embeddings.
    public var negative: String?
    /// Language of the prompts, such as `eng_Latn`, or a template of it, such as `{lang}`, for a model that translates
    /// between several; by default the tokenizer's.
    public var sourceLanguage: String?
    /// Language of the targets, which generated texts begin with; by default the tokenizer's and the model's.
    public var targetLanguage: String?
    /// The format of the rows, in place of the templates; `nil` to detect it.
    public var format: RowFormat?
    /// The task; by default what the model and the data say.
    public var task = TaskChoice()
    /// Maximum number of tokens of a prompt, or of a text that a model with a head reads; `nil` for the adapter's, else
    /// ``defaultMaxInputTokens``.
    public var maxInputTokens: Int?
    /// How rows are read as conversations.
    public var chat = ChatChoice()

    package static let defaultMaxInputTokens = 512

    /// - Parameters:
    ///   - prompt: template of the input, such as `Summarize: {dialogue}`.
    ///   - target: template of the target.
    ///   - pair: template of the second text of a pair.
    ///   - negative: template of a hard negative, for embeddings.
    public init(prompt: String? = nil, target: String? = nil, pair: String? = nil, negative: String? = nil) {
        (self.prompt, self.target, self.pair, self.negative) = (prompt, target, pair, negative)
    }

    /// The maximum number of prompt tokens, ``maxInputTokens`` if set.
    /// - Parameter record: the settings that an adapter was trained with.
    package func inputLimit(_ record: TrainingRecord? = nil) -> Int {
        maxInputTokens ?? record?.maxInputTokens ?? Self.defaultMaxInputTokens
    }

    /// All templates; missing ones are those that the adapter was trained with.
    /// - Parameter needsTarget: whether a target is required if there is no second text.
    /// - Throws: ``PEFTError`` for a missing or invalid template.
    package func templates(record: TrainingRecord? = nil, needsTarget: Bool = true) throws -> RowTemplates {
        let pair = try (pair ?? record?.pair).map { try Template($0) }
        let negative = try (negative ?? record?.negative).map { try Template($0) }
        let known = record.flatMap { $0.target.isEmpty ? nil : $0.target }
        let isOptional = !needsTarget || task.task == .embeddings || pair != nil && task.task == nil
        var templates = RowTemplates(
            prompt: try promptTemplate(default: record?.prompt),
            target: target == nil && known == nil && isOptional ? nil : try targetTemplate(default: known),
            pair: pair,
            negative: negative)
        templates.sourceLanguage = try languageTemplate(sourceLanguage, record?.sourceLanguage, "source")
        templates.targetLanguage = try languageTemplate(targetLanguage, record?.targetLanguage, "target")
        return templates
    }

    private func languageTemplate(_ given: String?, _ fallback: String?, _ name: String) throws -> Template? {
        guard given != nil || fallback != nil else { return nil }
        return try Self.template(given, fallback, option: "\(name)-language", example: "eng_Latn")
    }

    func promptTemplate(default fallback: String?) throws -> Template {
        try Self.template(prompt, fallback, option: "prompt", example: "'Summarize: {dialogue}'")
    }

    func targetTemplate(default fallback: String?) throws -> Template {
        try Self.template(target, fallback, option: "target", example: "'{summary}'")
    }

    private static func template(_ given: String?, _ fallback: String?, option: String, example: String) throws
        -> Template
    {
        if let given {
            do { return try Template(given) } catch let error as PEFTError {
                throw PEFTError(error.problem, remedy: error.remedy, isUsage: true)
            }
        }
        if let fallback { return try Template(fallback) }
        throw PEFTError(
            "--\(option) is missing", remedy: "add a template such as --\(option) \(example)", isUsage: true)
    }
}
