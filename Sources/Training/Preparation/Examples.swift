/// The examples of a dataset before tokenization.
package enum Examples {
    case texts([Example])
    /// Conversations, with the settings that render and encode them.
    case chats([Conversation], ChatSettings)

    package var count: Int {
        switch self {
        case .texts(let examples): examples.count
        case .chats(let conversations, _): conversations.count
        }
    }
    package var isEmpty: Bool { count == 0 }

    /// Prompts and targets; empty for conversations.
    package var texts: [Example] {
        guard case .texts(let examples) = self else { return [] }
        return examples
    }

    /// Conversations; empty for prompts and targets.
    package var chats: [Conversation] {
        guard case .chats(let conversations, _) = self else { return [] }
        return conversations
    }
}

extension Examples {
    /// Merges prompts and targets with the same prompt (``Example/groupedByPrompt(_:)``); leaves conversations unchanged.
    package var groupedByPrompt: Examples {
        guard case .texts(let examples) = self else { return self }
        return .texts(Example.groupedByPrompt(examples))
    }

    /// Holds out a part.
    /// - Parameter classes: the class of each example, for a stratified split.
    package func splitting(_ split: ValidationSplit, classes: [String]? = nil) throws -> (
        training: Examples, heldOut: Examples
    ) {
        switch self {
        case .texts(let examples):
            let parts = try split(examples, classes: classes)
            return (.texts(parts.training), .texts(parts.heldOut))
        case .chats(let conversations, let settings):
            let parts = try split(conversations)
            return (.chats(parts.training, settings), .chats(parts.heldOut, settings))
        }
    }

    /// How many of the examples are also in `training` (contamination).
    package func count(in training: Examples) -> Int {
        switch self {
        case .texts(let examples): SharedExamples.count(examples, in: training.texts)
        case .chats(let conversations, _): SharedExamples.count(conversations, in: training.chats)
        }
    }
}
