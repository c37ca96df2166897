import LanguageModels
import PEFTSupport
import Serving

/// A value or a list of values.
struct OneOrMany<Value: Decodable & Sendable>: Decodable, Sendable {
    let values: [Value]

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let value = try? container.decode(Value.self) {
            values = [value]
        } else {
            values = try container.decode([Value].self)
        }
    }
}

/// The fields that completions and chat completions share: OpenAI's, and those that vLLM adds.
struct GenerationFields: Decodable, Sendable {
    var model: String?
    var max_tokens: Int?
    var temperature: Double?
    var top_p: Double?
    var n: Int?
    var stream: Bool?
    var stream_options: StreamOptions?
    var stop: OneOrMany<String>?
    var presence_penalty: Double?
    var frequency_penalty: Double?
    var logit_bias: [String: Double]?
    var seed: Int?
    var top_k: Int?
    var min_p: Double?
    var repetition_penalty: Double?
    var min_tokens: Int?
    var no_repeat_ngram_size: Int?
    var ignore_eos: Bool?
    var stop_token_ids: [Int]?
    var include_stop_str_in_output: Bool?
    var skip_special_tokens: Bool?
    var add_special_tokens: Bool?
    /// Languages of prompt and text, for a model that translates.
    var source_language: String?
    var target_language: String?

    struct StreamOptions: Decodable, Sendable { var include_usage: Bool? }

    /// Whether the last chunk of a stream contains the usage.
    var includesUsage: Bool { stream_options?.include_usage ?? false }

    /// Fields that would change the answer and are not supported, with the values that change nothing.
    private static let unsupported: [(name: String, neutral: [JSON])] = [
        ("suffix", [""]), ("best_of", [1]), ("functions", [.array([])]), ("function_call", ["none"]),
        ("guided_json", []), ("guided_regex", []), ("guided_choice", []), ("guided_grammar", []),
        ("structured_outputs", []), ("use_beam_search", [false]), ("length_penalty", [1]),
        ("early_stopping", [false]),
        ("prompt_logprobs", []), ("logits_processors", []), ("truncate_prompt_tokens", []),
        ("modalities", [["text"]]),
        ("audio", []), ("prediction", []), ("reasoning_effort", []), ("web_search_options", []), ("verbosity", []),
        ("continue_final_message", [false]), ("chat_template", []), ("documents", [.array([])]),
        ("bad_words", [.array([])]),
        ("allowed_token_ids", []), ("prompt_embeds", []), ("cache_salt", []), ("priority", [0]), ("typical_p", [1]),
        ("logprob_token_ids", []), ("kv_transfer_params", []), ("thinking_token_budget", []),
    ]

    /// - Throws: ``APIError`` that names an unsupported field.
    static func rejectUnsupported(_ body: JSON, isChat: Bool) throws {
        let own: [(name: String, neutral: [JSON])] =
            isChat
            ? [("echo", [false]), ("source_language", []), ("target_language", [])]
            : [("tools", [.array([])]), ("tool_choice", ["none"])]
        for (name, neutral) in unsupported + own {
            guard let value = body[name], value != .null, !neutral.contains(value) else { continue }
            throw APIError(
                .badRequest, "'\(name)' is not supported; leave it out", parameter: name,
                code: "unsupported_parameter")
        }
        if let logprobs = body["logprobs"], logprobs != .null, body["echo"] == true {
            throw APIError.invalid(
                "'logprobs' of an echoed prompt are not supported; leave one of them out", "logprobs")
        }
    }

    /// A request of the engine for a prompt.
    func request(_ prompt: [Int], adapter: String?, most: Int?, limits: RequestLimits) throws -> GenerationRequest {
        var request = GenerationRequest(prompt: prompt, adapter: adapter)
        try Self.require("temperature", temperature, in: 0...100)
        try Self.require("presence_penalty", presence_penalty, in: -2...2)
        try Self.require("frequency_penalty", frequency_penalty, in: -2...2)
        if let most, most < 1 { throw APIError.invalid("max_tokens is \(most); use 1 or more", "max_tokens") }
        if let min_tokens, min_tokens < 0 || min_tokens > most ?? .max {
            throw APIError.invalid("min_tokens is \(min_tokens); use a value from 0 to max_tokens", "min_tokens")
        }
        // −1 is vLLM's value for all tokens.
        if let top_k, top_k < -1 { throw APIError.invalid("top_k is \(top_k); use 0 (all) or more", "top_k") }
        request.parameters = GenerateParameters(
            maxNewTokens: most, minNewTokens: min_tokens, temperature: temperature, topK: top_k.map { max(0, $0) },
            topP: top_p, minP: min_p, beams: 1, noRepeatNgram: no_repeat_ngram_size,
            repetitionPenalty: repetition_penalty,
            seed: seed.map { UInt64(bitPattern: Int64($0)) } ?? UInt64.random(in: 0...UInt64.max))
        request.bias = TokenChooser.Bias(
            presencePenalty: presence_penalty ?? 0, frequencyPenalty: frequency_penalty ?? 0, logitBias: try bias())
        let stops = stop?.values ?? []
        guard stops.count <= 16, stops.allSatisfy({ (1...1000).contains($0.unicodeScalars.count) }) else {
            throw APIError.invalid("'stop' needs at most 16 nonempty texts of at most 1000 characters", "stop")
        }
        request.stopTexts = stops
        request.stopTokens = Set(stop_token_ids ?? [])
        request.ignoresEndTokens = ignore_eos ?? false
        request.includesStopText = include_stop_str_in_output ?? false
        request.skipsSpecialTokens = skip_special_tokens ?? true
        request.choices = n ?? 1
        guard (1...limits.choices).contains(request.choices) else {
            throw APIError.invalid("n is \(request.choices); use a value from 1 to \(limits.choices)", "n")
        }
        request.deadline = .now + .seconds(limits.seconds)
        if let client = Client.current {
            request.client = client.name
            request.onTokens = { client.take(tokens: $0) }
        }
        return request
    }

    /// The value of `response_format`; `nil` if it restricts nothing.
    static func responseFormat(_ body: JSONBody) throws -> ResponseFormat? {
        guard let format = body.json["response_format"], format != .null, format != ["type": "text"] else {
            return nil
        }
        do {
            // The order of a schema's properties is that of the answer's.
            guard let ordered = try body.ordered()["response_format"] else { return nil }
            return try ResponseFormat.parse(ordered)
        } catch let error as PEFTError { throw APIError.invalid(error.description, "response_format") }
    }

    private func bias() throws -> [Int: Double] {
        var result: [Int: Double] = [:]
        for (key, value) in logit_bias ?? [:] {
            guard let token = Int(key), -100...100 ~= value else {
                throw APIError.invalid(
                    "logit_bias maps '\(key)' to \(value); map token ids to values from -100 to 100", "logit_bias")
            }
            result[token] = value
        }
        return result
    }

    private static func require(_ name: String, _ value: Double?, in range: ClosedRange<Double>) throws {
        guard let value, !range.contains(value) else { return }
        throw APIError.invalid(
            "\(name) is \(value); use a value from \(range.lowerBound) to \(range.upperBound)", name)
    }
}

/// Limits of single requests.
struct RequestLimits: Sendable {
    /// Time limit in seconds.
    var seconds: Double
    /// Maximum number of choices per prompt.
    var choices = 32
    /// Maximum number of prompts of a request.
    var prompts = 64
}
