import Hummingbird
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Serving

/// `/v1/completions`, `/v1/chat/completions`, `/v1/messages`, `/tokenize` and `/detokenize`.
struct CompletionRoutes: Sendable {
    let engine: Engine
    let names: ModelNames
    let frontEnds: FrontEnds
    let limits: RequestLimits
    let maxBody: Int

    func add(to router: Router<ServerContext>) {
        router.post("/v1/completions", use: complete)
        router.post("/v1/chat/completions", use: chat)
        router.post("/v1/messages", use: messages)
        router.post("/tokenize", use: tokenize)
        router.post("/detokenize", use: detokenize)
    }

    // MARK: Completions

    private struct CompletionFields: Decodable {
        var prompt: Prompts
        var echo: Bool?
        var logprobs: Int?
    }

    /// A text, a list of texts, token ids, or a list of those.
    private enum Prompts: Decodable {
        case texts([String])
        case tokens([[Int]])

        init(from decoder: any Decoder) throws {
            let value = try decoder.singleValueContainer()
            if let text = try? value.decode(String.self) {
                self = .texts([text])
            } else if let texts = try? value.decode([String].self) {
                self = .texts(texts)
            } else if let tokens = try? value.decode([Int].self) {
                self = .tokens([tokens])
            } else {
                self = .tokens(try value.decode([[Int]].self))
            }
        }
    }

    @Sendable private func complete(_ incoming: Request, context: ServerContext) async throws -> Response {
        var request = incoming
        let body = try await JSONBody(&request, limit: maxBody)
        try GenerationFields.rejectUnsupported(body.json, isChat: false)
        let fields: GenerationFields = try body.decoded()
        let own: CompletionFields = try body.decoded()
        let adapter = try names.adapter(fields.model)
        let frontEnd = try frontEnds[adapter]
        let tokenizer = try translating(frontEnd, fields)
        let prompts: [[Int]]
        switch own.prompt {
        case .tokens(let tokens): prompts = tokens
        case .texts(let texts):
            prompts = try withTokenizerErrors {
                texts.map { tokenizer.encode(text: $0, addSpecialTokens: fields.add_special_tokens ?? true) }
            }
        }
        guard (1...limits.prompts).contains(prompts.count) else {
            throw APIError.invalid("'prompt' has \(prompts.count) prompts; use 1 to \(limits.prompts)", "prompt")
        }
        try Self.require("logprobs", own.logprobs)
        let format = try GenerationFields.responseFormat(body)
        let requests = try prompts.map { prompt in
            // OpenAI's default length of completions.
            let length = min(16, engine.model.room(after: prompt.count))
            var made = try fields.request(
                prompt, adapter: adapter, most: fields.max_tokens ?? max(1, length), limits: limits)
            made.logProbabilities = own.logprobs
            made.responseFormat = format
            made.tokenizer = frontEnd.shared
            if fields.target_language ?? frontEnd.languages.target != nil {
                made.parameters.beginning = TextBeginning(
                    language: tokenizer.targetLanguageID, tokenizer, engine.model.defaults)
            }
            return made
        }
        let choices = requests[0].choices
        var echoes: [String] = []
        if own.echo ?? false {
            for prompt in prompts {
                let text: String
                if case .texts(let texts) = own.prompt, texts.count == prompts.count {
                    text = texts[echoes.count / choices]
                } else {
                    text = frontEnd.tokenizer.decode(tokens: prompt)
                }
                echoes += Array(repeating: text, count: choices)
            }
        }
        let answer = CompletionFormat(
            id: "cmpl-\(context.requestID)", model: fields.model ?? names.base,
            hasLogProbabilities: own.logprobs != nil,
            echoes: echoes, sendsUsage: fields.includesUsage)
        let events = merged(try requests.map { try engine.submit($0) })
        return try await Answering(request: request, context: context, choices: choices, count: requests.count)
            .respond(events, answer, streams: fields.stream ?? false, includesUsage: fields.includesUsage)
    }

    /// The tokenizer for the languages of a request, by default those that the adapter was trained with.
    private func translating(_ frontEnd: FrontEnd, _ fields: GenerationFields) throws -> Tokenizer {
        let languages = TranslationLanguages(
            source: fields.source_language ?? frontEnd.languages.source,
            target: fields.target_language ?? frontEnd.languages.target)
        guard !languages.isEmpty else { return frontEnd.tokenizer }
        let parameter = fields.target_language == nil ? "source_language" : "target_language"
        guard engine.model.isEncoderDecoder else {
            throw APIError.invalid("this model doesn't translate; leave '\(parameter)' out", parameter)
        }
        do { return try frontEnd.tokenizer.translating(languages) } catch let error as PEFTError {
            throw APIError.invalid(error.description, parameter)
        }
    }

    // MARK: Chat

    private struct ChatFields: Decodable {
        var max_completion_tokens: Int?
        var logprobs: Bool?
        var top_logprobs: Int?
        var chat_template_kwargs: [String: JSON]?
        var add_generation_prompt: Bool?
    }

    /// A chat request that was checked.
    private struct Chat {
        let fields: GenerationFields
        let own: ChatFields
        let tools: ToolUse?
        let request: GenerationRequest
    }

    private func chat(_ body: JSONBody) throws -> Chat {
        try GenerationFields.rejectUnsupported(body.json, isChat: true)
        let fields: GenerationFields = try body.decoded()
        let own: ChatFields = try body.decoded()
        let adapter = try names.adapter(fields.model)
        try Self.require("top_logprobs", own.top_logprobs)
        if own.top_logprobs != nil, !(own.logprobs ?? false) {
            throw APIError.invalid("'top_logprobs' requires 'logprobs': true", "top_logprobs")
        }
        let ordered = try body.ordered()
        let frontEnd = try frontEnds[adapter]
        let conversations = frontEnd.conversations
        let tools = try ToolUse(ordered, format: conversations.toolFormat)
        let prompt = try conversations.prompt(
            Self.messages(ordered), tools: tools?.tools, variables: own.chat_template_kwargs ?? [:],
            addGenerationPrompt: own.add_generation_prompt ?? true)
        var made = try fields.request(
            prompt, adapter: adapter, most: own.max_completion_tokens ?? fields.max_tokens, limits: limits)
        made.tokenizer = frontEnd.shared
        if own.logprobs ?? false { made.logProbabilities = own.top_logprobs ?? 0 }
        made.responseFormat = try GenerationFields.responseFormat(body)
        if let tools {
            guard made.responseFormat == nil else {
                throw APIError.invalid(
                    "'response_format' beside 'tools' is not supported; leave one of them out", "response_format")
            }
            made.responseFormat = tools.responseFormat
            // Markers of calls may be special tokens.
            if case .parsed = tools.reading { made.skipsSpecialTokens = false }
        }
        if let end = conversations.turnEnd, !made.ignoresEndTokens { made.stopTokens.insert(end) }
        return Chat(fields: fields, own: own, tools: tools, request: made)
    }

    @Sendable private func chat(_ incoming: Request, context: ServerContext) async throws -> Response {
        var request = incoming
        let chat = try chat(await JSONBody(&request, limit: maxBody))
        let fields = chat.fields
        let answer = ChatFormat(
            id: "chatcmpl-\(context.requestID)", model: fields.model ?? names.base,
            hasLogProbabilities: chat.own.logprobs ?? false, sendsUsage: fields.includesUsage, tools: chat.tools)
        let events = merged([try engine.submit(chat.request)])
        return try await Answering(request: request, context: context, choices: chat.request.choices, count: 1)
            .respond(events, answer, streams: fields.stream ?? false, includesUsage: fields.includesUsage)
    }

    /// A chat in Anthropic's form.
    @Sendable private func messages(_ incoming: Request, context: ServerContext) async throws -> Response {
        var request = incoming
        let body = try MessagesBody.chat(await JSONBody(&request, limit: maxBody).ordered())
        let chat = try chat(JSONBody(body))
        let answer = MessagesFormat(
            id: "msg_\(context.requestID)", model: chat.fields.model ?? names.base,
            promptTokens: chat.request.prompt.count, tools: chat.tools)
        let events = merged([try engine.submit(chat.request)])
        return try await Answering(request: request, context: context, choices: 1, count: 1)
            .respond(events, answer, streams: chat.fields.stream ?? false, includesUsage: true)
    }

    /// The value of `messages`.
    private static func messages(_ body: OrderedJSON) throws -> [OrderedJSON] {
        guard let messages = body["messages"], messages.scalar != .null else {
            throw APIError.invalid("'messages' is missing", "messages")
        }
        guard let list = messages.elements else { throw APIError.invalid("'messages' is no list", "messages") }
        return list
    }

    private static func require(_ name: String, _ count: Int?) throws {
        guard let count, !(0...20).contains(count) else { return }
        throw APIError.invalid("\(name) is \(count); use a value from 0 to 20", name)
    }

    // MARK: Tokens

    private struct TokenizeFields: Decodable {
        var model: String?
        var prompt: String?
        var add_special_tokens: Bool?
        var add_generation_prompt: Bool?
        var return_token_strs: Bool?
        var chat_template_kwargs: [String: JSON]?
    }

    @Sendable private func tokenize(_ incoming: Request, context: ServerContext) async throws -> Response {
        var request = incoming
        let body = try await JSONBody(&request, limit: maxBody)
        let fields: TokenizeFields = try body.decoded()
        let frontEnd = try frontEnds[names.adapter(fields.model)]
        let tokens: [Int]
        if body.json["messages"] ?? .null != .null {
            let ordered = try body.ordered()
            let tools = ordered["tools"].flatMap { $0.elements?.isEmpty ?? true ? nil : $0 }
            tokens = try frontEnd.conversations.prompt(
                Self.messages(ordered), tools: tools, variables: fields.chat_template_kwargs ?? [:],
                addGenerationPrompt: fields.add_generation_prompt ?? true)
        } else if let prompt = fields.prompt {
            tokens = try withTokenizerErrors {
                frontEnd.tokenizer.encode(text: prompt, addSpecialTokens: fields.add_special_tokens ?? true)
            }
        } else {
            throw APIError.invalid("'prompt' is missing; give 'prompt' or 'messages'", "prompt")
        }
        var answer: [String: JSON] = [
            "count": .integer(tokens.count), "max_model_len": .integer(engine.model.contextLength),
            "tokens": .array(tokens.map { .integer($0) }),
        ]
        if fields.return_token_strs ?? false {
            answer["token_strs"] = .array(tokens.map { .string(frontEnd.tokenizer.token(for: $0) ?? "") })
        }
        return Response(.object(answer))
    }

    private struct DetokenizeFields: Decodable {
        var model: String?
        var tokens: [Int]
        var skip_special_tokens: Bool?
    }

    @Sendable private func detokenize(_ incoming: Request, context: ServerContext) async throws -> Response {
        var request = incoming
        let fields: DetokenizeFields = try await JSONBody(&request, limit: maxBody).decoded()
        let tokenizer = try frontEnds[names.adapter(fields.model)].tokenizer
        if let id = fields.tokens.first(where: { tokenizer.token(for: $0) == nil }) {
            throw APIError.invalid("token id \(id) is outside the vocabulary", "tokens")
        }
        let text = try withTokenizerErrors {
            tokenizer.decode(tokens: fields.tokens, skipSpecialTokens: fields.skip_special_tokens ?? false)
        }
        return Response(["prompt": .string(text)])
    }
}
