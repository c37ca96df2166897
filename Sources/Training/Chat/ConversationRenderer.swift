import PEFTJinja
import PEFTSupport
import PEFTTokenizers

/// Renders a conversation, or a variation of it, with a chat template and the conversation's tools and variables.
struct ConversationRenderer {
    let conversation: Conversation
    let template: ChatTemplate
    private let variables: [String: JinjaValue]

    /// - Parameter variables: template variables of every conversation; the conversation's own take precedence.
    init(_ conversation: Conversation, _ template: ChatTemplate, _ variables: [String: JinjaValue]) {
        (self.conversation, self.template) = (conversation, template)
        self.variables = variables.merging(conversation.variables) { _, own in own }
    }

    /// - Throws: ``PEFTError`` naming the row where the template fails.
    func render(_ messages: [JinjaValue], prompts: Bool = false) throws -> JinjaTemplate.Rendering {
        do {
            return try template.render(
                messages, tools: conversation.tools, addGenerationPrompt: prompts, variables: variables)
        } catch let error as PEFTError {
            throw PEFTError("\(conversation.row): \(error.problem)", remedy: error.remedy)
        }
    }

    /// The UTF-8 bytes of a rendering; `nil` where the template fails.
    func bytes(_ messages: [JinjaValue], prompts: Bool = false) -> [UInt8]? {
        (try? render(messages, prompts: prompts)).map { Array($0.text.utf8) }
    }
}
