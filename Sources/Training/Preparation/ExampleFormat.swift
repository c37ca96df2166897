import Foundation
import PEFTSupport
import PEFTTokenizers

/// How the rows of a dataset become examples: as prompts and targets, or as conversations.
package enum ExampleFormat: Sendable {
    case texts(RowTemplates)
    /// Conversations from the rows' messages, or with `turns` from a prompt and its target as two turns.
    case chats(ChatSettings, turns: RowTemplates?)

    /// The templates; `nil` for rows of messages.
    package var templates: RowTemplates? {
        switch self {
        case .texts(let templates): templates
        case .chats(_, let turns): turns
        }
    }

    /// The chat settings; `nil` for prompts and targets.
    package var chat: ChatSettings? {
        guard case .chats(let settings, _) = self else { return nil }
        return settings
    }

    /// Reads at most `limit` rows of all sources together.
    /// - Parameter data: names of data sources (``DataSource/all(_:)``).
    /// - Throws: ``PEFTError`` naming the row and the problem.
    package func read(_ data: [String], limit: Int? = nil) throws -> Examples {
        // Messages keep the order of their keys.
        let isInOrder = chat != nil && templates == nil
        return try examples(from: DataSet.read(DataSource.all(data), limit: limit, keepsText: isInOrder))
    }

    /// - Parameter rows: rows of messages preferably have their JSON text, which keeps the order of keys.
    package func examples(from rows: [Row]) throws -> Examples {
        switch self {
        case .texts(let templates): .texts(try templates.examples(from: rows))
        case .chats(let settings, let turns):
            .chats(try settings.conversations(rows, prompt: turns?.prompt, target: turns?.target), settings)
        }
    }
}

extension DataSettings {
    /// Whether rows are read as prompts and targets or as conversations.
    ///
    /// With a prompt and a target, rows are conversations only if ``ChatChoice/wrapsTemplates`` is set. Otherwise they are
    /// if a field of messages is named, the adapter was trained on conversations, or the first row holds messages, unless it has
    /// the fields of the adapter's template too.
    /// - Parameters:
    ///   - data: names of data sources (``DataSource/all(_:)``).
    ///   - tokenizerFolder: the tokenizer's folder, with its chat template.
    ///   - record: the settings that an adapter was trained with, which these override.
    ///   - needsTarget: whether the examples need targets; for generation they don't.
    /// - Throws: ``PEFTError`` for missing or contradictory settings.
    package func exampleFormat(
        of data: [String], tokenizerFolder: URL, record: TrainingRecord? = nil, needsTarget: Bool = true
    ) throws -> ExampleFormat {
        try exampleFormat(
            firstRow: { try Self.firstRow(of: data) }, tokenizerFolder: tokenizerFolder, record: record,
            needsTarget: needsTarget)
    }

    /// The same for rows that were already read.
    /// - Parameter firstRow: called if the format depends on it.
    package func exampleFormat(
        firstRow: () throws -> Row?, tokenizerFolder: URL, record: TrainingRecord?, needsTarget: Bool
    ) throws -> ExampleFormat {
        guard try areChats(firstRow, record) else {
            guard !chat.isSet else {
                throw PEFTError(
                    "chat options require chats, but the data has no messages",
                    remedy: "add --chat to --prompt and --target, or name the field with --messages")
            }
            return .texts(try templates(record: record, needsTarget: needsTarget))
        }
        guard maxInputTokens == nil else {
            throw PEFTError("--max-input applies to prompts, but the data holds chats", remedy: "use --max-length")
        }
        let turns = try turns(firstRow, record, needsTarget: needsTarget)
        return .chats(try chat.settings(folder: tokenizerFolder, record: record), turns: turns)
    }

    private func areChats(_ firstRow: () throws -> Row?, _ record: TrainingRecord?) throws -> Bool {
        if chat.wrapsTemplates {
            guard prompt != nil || target == nil, chat.messages == nil || prompt == nil else {
                throw PEFTError(
                    "--chat requires --prompt and --target, or data with messages",
                    remedy: "use both templates or neither", isUsage: true)
            }
            return true
        }
        if chat.messages != nil { return true }
        guard prompt == nil, target == nil else { return false }
        if record?.chat != nil { return true }
        return try holdMessages(firstRow, record)
    }

    /// Whether rows hold messages, and not the fields of the template that an adapter was trained with.
    private func holdMessages(_ firstRow: () throws -> Row?, _ record: TrainingRecord?) throws -> Bool {
        guard let row = try firstRow(), ChatRows.areIn(row) else { return false }
        guard let prompt = record?.prompt, !prompt.isEmpty else { return true }
        return (try? Template(prompt).render(row)) == nil
    }

    /// The templates of the turns of rows without messages.
    private func turns(
        _ firstRow: () throws -> Row?, _ record: TrainingRecord?, needsTarget: Bool
    ) throws -> RowTemplates? {
        guard chat.messages == nil else { return nil }
        let isKnown = record?.prompt.isEmpty == false && (chat.wrapsTemplates || record?.chat != nil)
        let known = isKnown ? record : nil
        guard try prompt != nil || known != nil && !holdMessages(firstRow, record) else { return nil }
        return RowTemplates(
            prompt: try promptTemplate(default: known?.prompt),
            target: needsTarget ? try targetTemplate(default: known?.target) : nil)
    }
}
