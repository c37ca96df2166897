import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Training

/// The data of a comparison.
public struct ComparisonData {
    /// The dataset's name in the report.
    public var name: String
    package var content: Content

    package enum Content {
        /// Prompts and targets.
        case texts(Texts)
        /// Conversations, whose last assistant turn is the reference.
        case chats(Chats)
    }

    package struct Texts {
        package var training: [Example]
        package var validation: [Example]
        package var test: [Example]
        package var templates: RowTemplates
        /// The task, as far as the user chose it.
        package var task: TaskChoice
        /// Values of the fields that baselines group examples by: field, then location of the row.
        package var fields: [String: [Row.Location: String]] = [:]

        package init(
            training: [Example], validation: [Example], test: [Example], templates: RowTemplates,
            task: TaskChoice = TaskChoice()
        ) {
            (self.training, self.validation, self.test) = (training, validation, test)
            (self.templates, self.task) = (templates, task)
        }
    }

    package struct Chats {
        package var training: [Conversation]
        package var validation: [Conversation]
        package var test: [Conversation]
        package var settings: ChatSettings

        package init(
            training: [Conversation], validation: [Conversation], test: [Conversation], settings: ChatSettings
        ) {
            (self.training, self.validation, self.test, self.settings) = (training, validation, test, settings)
        }
    }

    package init(name: String, content: Content) { (self.name, self.content) = (name, content) }

    var counts: (training: Int, validation: Int, test: Int) {
        switch content {
        case .texts(let texts): (texts.training.count, texts.validation.count, texts.test.count)
        case .chats(let chats): (chats.training.count, chats.validation.count, chats.test.count)
        }
    }

    /// The templates of prompt and target, for reproducing the run.
    var description: (prompt: String, target: String) {
        switch content {
        case .texts(let texts):
            (texts.templates.prompt.text, (texts.templates.target ?? texts.templates.pair)?.text ?? "")
        case .chats(let chats):
            (
                "messages, rendered by the chat template",
                "assistant turns (loss:  \(chats.settings.loss.rawValue))"
            )
        }
    }

    /// The base model with the head for the data's task.
    /// - Throws: ``PEFTError`` for data that doesn't fit the task.
    package func folder(_ base: ModelFolder) throws -> ModelFolder {
        guard case .texts(let texts) = content else { return base }
        return base.with(try texts.task.head(for: base, rows: texts.training.isEmpty ? texts.test : texts.training))
    }
}

/// The data as token ids, with the prompts and targets of the test set.
struct EncodedComparison {
    let training: [EncodedExample]
    let validation: [EncodedExample]
    /// Prompt and target of each test example.
    let questions: [(prompt: String, target: String)]
    /// Token ids of the first few test prompts.
    let prompts: [[Int]]
    /// The first few test examples.
    let firstOfTest: [EncodedExample]
    /// Evaluates a model on the test examples.
    let evaluate: (Evaluator, _ onProgress: (Int) -> Void) throws -> EvaluationResult

    init(
        _ data: ComparisonData, _ tokenizer: Tokenizer, folder: URL, for model: any LanguageModel,
        maxInputTokens: Int,
        virtualTokens: Int = 0
    ) throws {
        switch data.content {
        case .texts(let texts):
            let encoder = try RowEncoder(
                tokenizer, for: model, maxInputTokens: maxInputTokens, virtualTokens: virtualTokens)
            training = try encoder.encode(texts.training).examples
            validation = try encoder.encode(texts.validation).examples
            questions = texts.test.map { ($0.prompt, $0.target) }
            prompts = try texts.test.prefix(5).map { try encoder.prompt($0.prompt, languages: $0.languages).ids }
            firstOfTest = try encoder.encode(Array(texts.test.lazy.filter(encoder.knowsLabels).prefix(4))).examples
            evaluate = { try $0.evaluate(texts.test, onProgress: $1) }
        case .chats(let chats):
            let encoder = try chats.settings.encoder(tokenizer, folder: folder, for: model)
            training = try encoder.encode(chats.training).examples
            validation = try encoder.encode(chats.validation).examples
            let asked = try chats.test.map { try encoder.question($0) }
            questions = asked.map { (tokenizer.decode(tokens: $0.prompt, skipSpecialTokens: false), $0.answer) }
            prompts = asked.prefix(5).map(\.prompt)
            firstOfTest = Array(try encoder.encode(chats.test).examples.prefix(4))
            evaluate = { try $0.evaluate(chats.test, encoder, onProgress: $1) }
        }
    }
}
