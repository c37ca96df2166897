import PEFTJinja
import PEFTSupport
import PEFTTokenizers
import Testing

@testable import Training

/// Which parts of a rendering are the assistant's, under templates that write its last turn in a way of its own.
@Suite struct ThinkingTemplateTests {
    private typealias Messages = [JinjaValue]

    private func spans(
        _ source: String, _ messages: [JinjaValue], _ loss: ChatLoss = .assistant,
        variables: [String: JinjaValue] = [:]
    ) throws -> (text: String, learned: [String], written: AssistantSpans) {
        let template = ChatTemplate(
            try JinjaTemplate(source, name: "test"), specialTokens: ["eos_token": "<|im_end|>"])
        let conversation = Conversation(messages: messages, row: .init(file: "rows.jsonl", number: 7))
        let written = try AssistantSpans(conversation, template, loss, variables)
        let bytes = Array(written.text.utf8)
        return (written.text, written.spans.map { String(decoding: bytes[$0], as: UTF8.self) }, written)
    }

    private func rendering(_ source: String, _ messages: [JinjaValue], prompts: Bool = false) throws -> String {
        try ChatTemplate(JinjaTemplate(source, name: "test"), specialTokens: ["eos_token": "<|im_end|>"])
            .render(messages, addGenerationPrompt: prompts).text
    }

    private func user(_ text: String) -> JinjaValue { Conversation.message("user", text) }
    private func assistant(_ text: String, _ more: KeyValuePairs<String, JinjaValue> = [:]) -> JinjaValue {
        var fields = JinjaValue(fields: ["role": .string("assistant"), "content": .string(text)]).dictionary
        for (key, value) in more { fields?[key] = value }
        return .dictionary(fields ?? JinjaDictionary())
    }

    private var two: [JinjaValue] { [user("a"), assistant("one"), user("b"), assistant("two")] }

    // MARK: As Qwen3's

    @Test func emptyBlocksOfTheLastTurnAreLearned() throws {
        let (text, learned, _) = try spans(ThinkingTemplates.qwen, two)
        #expect(try text == rendering(ThinkingTemplates.qwen, two))
        #expect(learned == ["one<|im_end|>\n", "<think>\n\n</think>\n\ntwo<|im_end|>\n"])
        let last = try spans(ThinkingTemplates.qwen, two, .last)
        #expect(last.learned == Array(learned.suffix(1)))
    }

    @Test func equalTurnsAreToldApart() throws {
        let same = [user("x"), assistant("x"), user("x"), assistant("x"), user("x"), assistant("x")]
        let (text, learned, written) = try spans(ThinkingTemplates.qwen, same)
        #expect(learned == ["x<|im_end|>\n", "x<|im_end|>\n", "<think>\n\n</think>\n\nx<|im_end|>\n"])
        #expect(written.spans.last?.upperBound == text.utf8.count)
        #expect(zip(written.spans, written.spans.dropFirst()).allSatisfy { $0.upperBound <= $1.lowerBound })
    }

    /// Earlier reasoning isn't in the text, as the model doesn't see it there either.
    @Test func reasoningIsLearnedInTheLastTurn() throws {
        let inText = [
            user("a"), assistant("<think>\nr1\n</think>\n\none"), user("b"),
            assistant("<think>\nr2\n</think>\n\ntwo"),
        ]
        let beside = [
            user("a"), assistant("one", ["reasoning_content": .string("r1")]), user("b"),
            assistant("two", ["reasoning_content": .string("r2")]),
        ]
        for messages in [inText, beside] {
            let (_, learned, _) = try spans(ThinkingTemplates.qwen, messages)
            #expect(learned == ["one<|im_end|>\n", "<think>\nr2\n</think>\n\ntwo<|im_end|>\n"])
        }
    }

    /// What the generation prompt writes is not learned.
    @Test func emptyBlocksOfThePromptAreNotLearned() throws {
        let (_, learned, written) = try spans(
            ThinkingTemplates.qwen, two, variables: ["enable_thinking": .boolean(false)])
        #expect(learned == ["one<|im_end|>\n", "two<|im_end|>\n"])
        #expect(written.missingTag == nil)
    }

    @Test func callsAndTheirResults() throws {
        let call = JinjaValue(fields: [
            "function": JinjaValue(fields: [
                "name": .string("f"), "arguments": JinjaValue(fields: ["x": .integer(1)]),
            ])
        ])
        let messages = [
            user("a"), assistant("", ["tool_calls": .list([call])]), Conversation.message("tool", "r"),
            assistant("done"),
            user("b"), assistant("bye"),
        ]
        let (_, learned, _) = try spans(ThinkingTemplates.qwen, messages)
        #expect(
            learned == [
                "<tool>f {\"x\": 1}</tool><|im_end|>\n", "done<|im_end|>\n", "<think>\n\n</think>\n\nbye<|im_end|>\n",
            ])
    }

    @Test func firstTurnsOfTheAssistant() throws {
        let (_, learned, _) = try spans(ThinkingTemplates.qwen, [assistant("hi")] + two)
        #expect(learned == ["hi<|im_end|>\n", "one<|im_end|>\n", "<think>\n\n</think>\n\ntwo<|im_end|>\n"])
    }

    // MARK: As DeepSeek-R1's

    @Test func turnsWithoutThePromptsReasoning() throws {
        let (text, learned, written) = try spans(ThinkingTemplates.deepSeek, two)
        #expect(try text == rendering(ThinkingTemplates.deepSeek, two))
        #expect(learned == ["one<|im_end|>", "two<|im_end|>"] && written.missingTag == "<think>")
    }

    /// The template drops the reasoning even of the last turn, which the model has to write.
    @Test(arguments: ["<think>\nr2\n</think>\n\ntwo", "<think>r2\n</think>\n\ntwo", "r2\n</think>\n\ntwo"])
    func reasoningOfTheLastTurnIsKept(content: String) throws {
        let messages = [user("a"), assistant("<think>\nr1\n</think>one"), user("b"), assistant(content)]
        let (text, learned, written) = try spans(ThinkingTemplates.deepSeek, messages)
        #expect(learned == ["one<|im_end|>", "r2\n</think>\n\ntwo<|im_end|>"] && written.missingTag == nil)
        let prompt = try rendering(ThinkingTemplates.deepSeek, Array(messages.dropLast()), prompts: true)
        #expect(text == prompt + "r2\n</think>\n\ntwo<|im_end|>")
    }

    @Test func reasoningBesideTheContentIsKept() throws {
        let messages = [user("a"), assistant("one", ["reasoning_content": .string("r")])]
        let (text, learned, _) = try spans(ThinkingTemplates.deepSeek, messages)
        #expect(learned == ["r\n</think>\n\none<|im_end|>"] && text.hasPrefix("<s>a<|im_start|><think>\nr\n</think>"))
    }

    @Test func argumentsAsTextForTemplatesThatNeedIt() throws {
        let fixture = try ChatFixture()
        let encoder = try fixture.encoder(ThinkingTemplates.deepSeek)
        let call = JinjaValue(fields: [
            "function": JinjaValue(fields: [
                "name": .string("f"), "arguments": JinjaValue(fields: ["x": .integer(1)]),
            ])
        ])
        let row = Conversation(
            messages: [user("a"), assistant("", ["tool_calls": .list([call])])],
            row: .init(file: "rows.jsonl", number: 1))
        let example = try #require(encoder.encode([row]).examples.first)
        let text = fixture.tokenizer.decode(tokens: example.ids, skipSpecialTokens: false)
        #expect(text.contains(#"f {"x": 1}"#), "\(text)")
    }

    // MARK: As others'

    @Test func promptsThatAreWrittenUnasked() throws {
        let call = JinjaValue(fields: ["function": JinjaValue(fields: ["name": .string("f")])])
        let messages = [
            user("a"), assistant("", ["tool_calls": .list([call])]), Conversation.message("tool", "r"),
            assistant("one"),
            user("b"), assistant("two"),
        ]
        let (text, learned, _) = try spans(ThinkingTemplates.command, messages)
        #expect(
            learned == ["<|START_THINKING|><|END_THINKING|>f<|im_end|>", "[one]<|im_end|>", "[two]<|im_end|>"])
        #expect(text.hasSuffix("<s>BOT:"))
        let first = try spans(ThinkingTemplates.command, [assistant("hi")] + two)
        #expect(first.learned == ["[hi]<|im_end|>", "[one]<|im_end|>", "[two]<|im_end|>"])
    }

    @Test func blocksThatCloseAtOnce() throws {
        let (_, learned, _) = try spans(ThinkingTemplates.nemotron, two)
        #expect(learned == ["</think>one<|im_end|>\n", "</think>two<|im_end|>\n"])
    }

    // MARK: What stays exact

    @Test func turnsWithoutLoss() throws {
        let messages = [
            user("a"), assistant("bad", ["weight": .integer(0)]), user("b"),
            assistant("worse", ["train": .boolean(false)]),
            user("c"), assistant("good"),
        ]
        let (_, learned, _) = try spans(ThinkingTemplates.qwen, messages)
        #expect(learned == ["<think>\n\n</think>\n\ngood<|im_end|>\n"])
        let (text, rest, _) = try spans(ThinkingTemplates.qwen, messages, .all)
        #expect(rest.joined() == text.replacing("bad<|im_end|>\n", with: "").replacing("worse<|im_end|>\n", with: ""))
    }

    /// A template whose other turns change with a turn's text can't tell where the turn is.
    @Test func turnsThatChangeOthersAreRefused() throws {
        let source = """
            {%- for m in messages %}{{- '<|im_start|>' + m.role + ':' + m.content + '<|im_end|>' }}{%- endfor %}
            {%- if not add_generation_prompt %}{{- messages | map(attribute='content') | join('') | length }}{%- endif %}
            {%- if add_generation_prompt %}{{- '<|im_start|>assistant:' }}{%- endif %}
            """
        let error = try #require(throws: PEFTError.self) {
            try spans(source, [user("a"), assistant("one"), user("b")])
        }
        #expect(error.problem.contains("rows.jsonl line 7") && error.problem.contains("message 2"), "\(error)")
    }

    @Test func openTags() {
        func open(_ text: String) -> String? { ReasoningTags.open(atEndOf: Array(text.utf8))?.closing }
        #expect(open("<|A|><think>\n") == "</think>" && open("[THINK]") == "[/THINK]")
        #expect(open("<think></think>") == nil && open("<think>x") == nil && open("<|im_start|>assistant\n") == nil)
    }
}
