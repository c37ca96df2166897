import Foundation
import LanguageModels
import PEFTJinja
import PEFTSupport
import Training

/// `peft generate --chat`: generates the next assistant turn of a conversation.
extension Generate {
    func generateChat(_ adapted: AdaptedModel, _ parameters: GenerateParameters) throws {
        var settings = adapted.record?.chat ?? ChatSettings()
        try template.apply(to: &settings, folder: adapted.tokenizerFolder)
        let chats = try settings.encoder(adapted.tokenizer, folder: adapted.tokenizerFolder, for: adapted.model)
        var conversation = Conversation(messages: [], row: .init(file: "--messages", number: 1, unit: .element))
        if let messages {
            guard text.isEmpty, field.isEmpty else {
                throw UsageError("a text and --messages are mutually exclusive", remedy: "use one of them")
            }
            conversation = try read(messages, settings)
        } else if text.isEmpty, field.isEmpty, !json, Console.inputIsTerminal {
            return try converse(adapted, parameters, chats, settings)
        } else {
            conversation.messages = [Conversation.message("user", try promptText(adapted.record))]
            if let system = settings.system { conversation.insert(system: system) }
        }
        try answer(conversation, adapted, parameters, chats)
    }

    @discardableResult
    private func answer(
        _ conversation: Conversation, _ adapted: AdaptedModel, _ parameters: GenerateParameters, _ chats: ChatEncoder
    ) throws -> String {
        let ids = try chats.prompt(
            conversation.messages, tools: conversation.tools, variables: conversation.variables)
        let prompt = adapted.tokenizer.decode(tokens: ids, skipSpecialTokens: false)
        return try write(prompt, ids, adapted, parameters, endToken: chats.turnEnd)
    }

    /// Reads a JSON file with a list of messages, or an object with messages and tools.
    private func read(_ path: String, _ settings: ChatSettings) throws -> Conversation {
        let file = URL(fileURLWithPath: NSString(string: path).expandingTildeInPath)
        guard let text = try? String(contentsOf: file, encoding: .utf8) else {
            throw PEFTError("can't read \(path)", remedy: "check that the file exists and is UTF-8")
        }
        let json = try JSON.parse(Data(text.utf8), name: path)
        let isList = json.array != nil
        let row = Row(
            isList ? ["messages": json] : json.object ?? [:], location: .init(file: path, number: 1, unit: .element),
            text: isList ? "{\"messages\": \(text)}" : text)
        return try ChatRows(field: settings.field, system: settings.system).conversation(row)
    }

    /// Interactive chat at the terminal until the end of input.
    private func converse(
        _ adapted: AdaptedModel, _ parameters: GenerateParameters, _ chats: ChatEncoder, _ settings: ChatSettings
    ) throws {
        Console.note(
            "Chat with the model: \\n is a line break, Ctrl-C stops an answer, an empty line or Ctrl-D exits.")
        var conversation = Conversation(messages: [], row: .init(file: "terminal", number: 1))
        if let system = settings.system { conversation.insert(system: system) }
        while true {
            Console.progress("> ", waiting: 1000)
            guard let line = Console.readLine() else {
                // Put the shell's prompt on a new line.
                return Console.note("")
            }
            guard !line.isEmpty else { return }
            conversation.messages.append(Conversation.message("user", TemplateOptions.unescape(line)))
            Interrupt.install()
            defer { Interrupt.remove() }
            let answer = try answer(conversation, adapted, parameters, chats)
            conversation.messages.append(Conversation.message("assistant", answer))
        }
    }
}
