import PEFTSupport
import PEFTTokenizers

/// What the text of a constrained sequence is: OpenAI's `response_format`.
package enum ResponseFormat: Sendable, Equatable {
    /// Any JSON object: `{"type": "json_object"}`.
    case jsonObject
    /// A value that satisfies a JSON Schema: `{"type": "json_schema", "json_schema": {"schema": …}}`.
    case jsonSchema(OrderedJSON)

    /// - Parameter json: the value of `response_format`.
    /// - Returns: `nil` for `{"type": "text"}`, which restricts nothing.
    /// - Throws: ``PEFTError`` for anything else than these three.
    package static func parse(_ json: OrderedJSON) throws -> ResponseFormat? {
        switch json["type"]?.scalar?.string {
        case "text": return nil
        case "json_object": return .jsonObject
        case "json_schema":
            guard let schema = json["json_schema"]?["schema"] else {
                throw PEFTError(
                    "'response_format' has no schema", remedy: #"add "json_schema": {"name": …, "schema": {…}}"#)
            }
            return .jsonSchema(schema)
        case let type:
            throw PEFTError(
                "the type of 'response_format' is \(type.map { "'\($0)'" } ?? "missing")",
                remedy: "use text, json_object or json_schema")
        }
    }

    /// - Parameters:
    ///   - text: the JSON text of a schema.
    ///   - name: says in errors where it came from.
    package static func schema(_ text: some Collection<UInt8>, name: String) throws -> ResponseFormat {
        guard text.count <= 1 << 20 else {
            throw PEFTError("\(name) has \(text.count) bytes", remedy: "use a schema of at most \(1 << 20) bytes")
        }
        return .jsonSchema(try OrderedJSON.parse(text, name: name))
    }

    /// - Throws: ``PEFTError`` for a schema that is unsupported or that no text satisfies.
    package func validate() throws { _ = try grammar() }

    func grammar() throws -> Grammar {
        switch self {
        case .jsonObject: try JSONSchemaCompiler.grammar(objectsOnly: true)
        case .jsonSchema(let schema): try JSONSchemaCompiler.grammar(schema)
        }
    }
}

/// Restricts a sequence to JSON text that satisfies a schema.
///
/// Every token of the sequence keeps a text that can be completed, and an end token comes exactly where the text is
/// complete. A sequence that reaches its maximum length before is cut off. Copies share caches, so one constraint, made
/// once for a schema, serves all sequences of a batch, also from several threads. See ``Grammar`` for what is restricted
/// beyond the schema.
package struct JSONConstraint: TokenConstraint {
    private let automaton: GrammarAutomaton
    private var position: GrammarAutomaton.Position
    /// The bytes of all tokens so far.
    package private(set) var text: [UInt8] = []
    private var hasEnded = false

    /// - Throws: ``PEFTError`` for a schema that is unsupported or that no text satisfies.
    package init(_ format: ResponseFormat, _ vocabulary: ConstraintVocabulary) throws {
        automaton = GrammarAutomaton(try format.grammar(), vocabulary)
        position = automaton.start
    }

    package func allow(into mask: inout TokenMask) {
        var position = position
        mask = hasEnded ? TokenMask(vocabulary: automaton.vocabulary.size) : automaton.mask(&position, text)
    }

    package mutating func accept(token: Int) throws {
        let vocabulary = automaton.vocabulary
        if vocabulary.endTokens.contains(token), !hasEnded, isComplete {
            hasEnded = true
            return
        }
        let bytes = vocabulary.bytes.indices.contains(token) ? vocabulary.bytes[token] : []
        guard !hasEnded, !bytes.isEmpty, let next = automaton.position(after: position, text, bytes) else {
            throw PEFTError(
                "the token \(token) is not allowed after '\(String(decoding: text.suffix(40), as: UTF8.self))'",
                remedy: "choose among the tokens of the mask")
        }
        position = next
        text += bytes
    }

    package var isComplete: Bool {
        var position = position
        return hasEnded || automaton.isComplete(&position, text)
    }

    package var mustEnd: Bool {
        var position = position
        return hasEnded || automaton.mustEnd(&position, text)
    }
}
