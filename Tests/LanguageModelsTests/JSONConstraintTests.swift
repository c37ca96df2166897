import Foundation
import PEFTSupport
import PEFTTokenizers
import TestSupport
import Testing

@testable import LanguageModels

/// Random sequences under a constraint are JSON that satisfies the schema, whatever the tokenizer.
@Suite struct JSONConstraintTests {
    /// Byte-level byte-pair encoding, SentencePiece's Unigram and byte-pair encoding with byte fallback.
    enum Kind: String, CaseIterable {
        case byteLevel, unigram, sentencePiece
    }

    private static let vocabularies: [Kind: Result<(Tokenizer, ConstraintVocabulary), any Error>] = Dictionary(
        uniqueKeysWithValues: Kind.allCases.map { kind in (kind, Result { try load(kind) }) })

    private static func load(_ kind: Kind) throws -> (Tokenizer, ConstraintVocabulary) {
        let tests = Checkout.root.appendingPathComponent("Tests")
        switch kind {
        case .byteLevel:
            let folder = tests.appendingPathComponent("TrainingTests/Fixtures/chat/model")
            let tokenizer = try Tokenizer.load(folder: folder)
            // A model may have more rows than its tokenizer has tokens.
            let size = tokenizer.vocabularySize + 5
            return (tokenizer, try ConstraintVocabulary(tokenizer, size: size, endTokens: [331]))
        case .unigram: return try vocabulary(of: JSONConstraintTests.unigram.text())
        case .sentencePiece:
            return try vocabulary(
                of: text(of: "Llama 2", in: tests.appendingPathComponent("TokenizersTests/Fixtures")))
        }
    }

    private static func vocabulary(of json: String) throws -> (Tokenizer, ConstraintVocabulary) {
        let tokenizer = try withTemporaryFile("tokenizer.json", json.utf8) {
            try Tokenizer.load(folder: $0.deletingLastPathComponent())
        }
        let end = try #require(tokenizer.id(for: "</s>"))
        return (
            tokenizer, try ConstraintVocabulary(tokenizer, size: tokenizer.vocabularySize, endTokens: [end])
        )
    }

    /// The text of a tokenizer among the fixtures. Its vocabulary must not pass through the keys of a dictionary.
    private static func text(of name: String, in folder: URL) throws -> String {
        let bytes = try [UInt8](Data(contentsOf: folder.appendingPathComponent("subword-models.json")))
        var scanner = JSONScanner(bytes)
        var found: ArraySlice<UInt8> = []
        try scanner.members { scanner in
            guard scanner.text.elementsEqual("cases".utf8) else { return try scanner.skipValue() }
            try scanner.elements { scanner in
                var isWanted = false
                try scanner.members { scanner in
                    let isName = scanner.text.elementsEqual("name".utf8)
                    let isTokenizer = scanner.text.elementsEqual("tokenizer".utf8)
                    let start = scanner.index
                    try scanner.skipValue()
                    let part = bytes[start..<scanner.index]
                    if isName { isWanted = String(decoding: part, as: UTF8.self).hasPrefix("\"\(name)\"") }
                    if isTokenizer, isWanted { found = part }
                }
            }
        }
        return String(decoding: found, as: UTF8.self)
    }

    /// A piece for each byte, and some that cross the borders of a grammar.
    private static let unigram: JSON = {
        var pieces: [JSON] = [["<unk>", 0], ["</s>", 0]]
        pieces += (0..<256).map {
            [.string("<0x" + String($0 + 256, radix: 16, uppercase: true).dropFirst() + ">"), -9]
        }
        pieces += [
            "▁", "{", "}", "[", "]", "\"", ":", ",", "\":", "▁\"", "{\"", "\"}", "\",", "\"name\":", "name", "a", "b",
            "c",
            "é", "漢", "😀", "\\", "\\n", "\\u", "00", "12", "1", "0", ".", "-", "true", "null", "],[", "[[", "]]",
            "\"\"",
            "▁▁", "\n", "\n▁▁", "<0", "▁{",
        ].map { [.string($0), -2] }
        return [
            "version": "1.0", "normalizer": nil, "post_processor": nil,
            "added_tokens": [
                ["id": 0, "content": "<unk>", "special": true], ["id": 1, "content": "</s>", "special": true],
            ],
            "pre_tokenizer": ["type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"],
            "decoder": [
                "type": "Sequence",
                "decoders": [
                    ["type": "ByteFallback"],
                    ["type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"],
                ],
            ],
            "model": ["type": "Unigram", "unk_id": 0, "byte_fallback": true, "vocab": .array(pieces)],
        ]
    }()

    private func constraint(
        _ schema: String, _ kind: Kind = .byteLevel
    ) throws -> (Tokenizer, ConstraintVocabulary, JSONConstraint) {
        let (tokenizer, vocabulary) = try #require(Self.vocabularies[kind]).get()
        let format = try ResponseFormat.schema(Array(schema.utf8), name: "schema")
        return (tokenizer, vocabulary, try JSONConstraint(format, vocabulary))
    }

    /// A sequence of uniformly random tokens, which prefers to close strings, arrays and objects more and more.
    private func sequence(
        _ start: JSONConstraint, _ vocabulary: ConstraintVocabulary, seed: UInt64
    ) throws -> (constraint: JSONConstraint, tokens: [Int]) {
        var random = SeededRandom(seed: seed)
        var constraint = start
        var mask = TokenMask(vocabulary: vocabulary.size)
        var tokens: [Int] = []
        for step in 0..<3_000 {
            constraint.allow(into: &mask)
            let allowed = mask.tokens
            try #require(!allowed.isEmpty, "dead end after \(String(decoding: constraint.text, as: UTF8.self))")
            let ends = allowed.filter { vocabulary.endTokens.contains($0) }
            #expect(constraint.isComplete == !ends.isEmpty && constraint.mustEnd == (ends.count == allowed.count))
            var token = allowed[random.below(allowed.count)]
            if random.below(150) < step {
                let closing = allowed.filter {
                    vocabulary.endTokens.contains($0)
                        || [[0x22], [0x5D], [0x7D]].contains(vocabulary.bytes[$0])
                }
                if !closing.isEmpty { token = closing[random.below(closing.count)] }
            }
            try constraint.accept(token: token)
            if vocabulary.endTokens.contains(token) { break }
            tokens.append(token)
        }
        return (constraint, tokens)
    }

    static let schemas = [
        "{}",
        #"""
        {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": -3,
        "maximum": 120}, "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "minItems": 1,
        "maxItems": 3}}, "required": ["name", "tags"], "additionalProperties": false}
        """#,
        #"""
        {"$defs": {"node": {"type": "object", "properties": {"v": {"type": "number"}, "next": {"anyOf":
        [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["v", "next"], "additionalProperties": false}},
        "$ref": "#/$defs/node"}
        """#,
        #"{"enum": ["a", "ab", "é\"\\\n", 1, 12, 1.5, -3, null, true, {"x": [1, {"y": "z"}]}, []]}"#,
        #"{"type": "string", "pattern": "^[a-c]{2,4}(x|é|漢|\"|\\n)+$"}"#,
        #"{"type": "string", "pattern": "b+[^ac]?", "minLength": 3, "maxLength": 6}"#,
        #"{"type": "array", "items": {"type": "string", "format": "date"}, "minItems": 1}"#,
        #"{"type": "object", "properties": {"u": {"type": "string", "format": "uuid"}}, "additionalProperties": {"type": "integer"}}"#,
        #"{"type": "array", "items": {"type": "number", "minimum": -1.25, "exclusiveMaximum": 3}, "minItems": 4}"#,
        #"{"type": "array", "items": {"type": "integer", "exclusiveMinimum": 99, "maximum": 100000}, "minItems": 4}"#,
        #"""
        {"type": "array", "prefixItems": [{"type": "boolean"}, {"type": ["string", "null"]}], "items": {"type":
        "integer", "minimum": 0}, "minItems": 1, "maxItems": 5}
        """#,
        #"""
        {"anyOf": [{"type": "object", "properties": {"k": {"const": "a"}, "x": {"type": "integer"}}, "required":
        ["k", "x"]}, {"type": "object", "properties": {"k": {"const": "ab"}, "y": {"type": "string"}}, "required":
        ["k", "y"]}, {"type": "array", "items": {"$ref": "#"}}]}
        """#,
        #"""
        {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties":
        {"b": {"type": "boolean"}}, "required": ["b"]}]}
        """#,
        #"""
        {"type": "object", "properties": {"a": {"type": "null"}, "ab": {"type": "string", "minLength": 2}, "b\"c":
        {"type": "null"}}, "required": ["ab"], "additionalProperties": true}
        """#,
        #"""
        {"type": "array", "items": {"anyOf": [{"type": "array", "items": {"$ref": "#/items"}, "maxItems": 3}, {"type":
        "array", "items": {"$ref": "#/items"}, "minItems": 4}]}}
        """#,
        #"{"type": "object", "required": ["p", "q"]}"#,
    ]

    @Test(arguments: schemas, Kind.allCases)
    func randomSequencesSatisfyTheSchema(schema: String, kind: Kind) throws {
        let (tokenizer, vocabulary, start) = try constraint(schema, kind)
        let validator = SchemaValidator(root: try JSON.parse(Data(schema.utf8), name: "schema"))
        for seed in UInt64(0)..<4 {
            let (constraint, tokens) = try sequence(start, vocabulary, seed: seed)
            let text = String(decoding: constraint.text, as: UTF8.self)
            try #require(constraint.isComplete, "\(text)")
            #expect(throws: Never.self) {
                try JSONSerialization.jsonObject(with: Data(constraint.text), options: .fragmentsAllowed)
            }
            #expect(try validator.problem(JSON.parse(Data(constraint.text), name: "text")) == nil, "\(text)")
            // Decoders may remove a first space.
            let decoded = tokenizer.decode(tokens: tokens)
            #expect(decoded.utf8.elementsEqual(text.utf8) || (" " + decoded).utf8.elementsEqual(text.utf8))
        }
    }

    @Test func jsonObjectsAreObjects() throws {
        let (_, vocabulary) = try #require(Self.vocabularies[.byteLevel]).get()
        let start = try JSONConstraint(.jsonObject, vocabulary)
        for seed in UInt64(0)..<6 {
            let text = try sequence(start, vocabulary, seed: seed).constraint.text
            #expect(try JSON.parse(Data(text), name: "text").object != nil)
        }
    }

    /// A mask holds exactly the tokens that may be accepted.
    @Test(arguments: [0, 1, 5, 8, 11, 13], [Kind.byteLevel, .unigram])
    func masksEqualTryingEachToken(schema: Int, kind: Kind) throws {
        let (_, vocabulary, start) = try constraint(Self.schemas[schema], kind)
        var random = SeededRandom(seed: UInt64(schema))
        var constraint = start
        var mask = TokenMask(vocabulary: vocabulary.size)
        for _ in 0..<12 {
            constraint.allow(into: &mask)
            let accepted = (0..<vocabulary.size).filter { token in
                var copy = constraint
                return (try? copy.accept(token: token)) != nil
            }
            try #require(mask.tokens == accepted)
            let token = accepted[random.below(accepted.count)]
            try constraint.accept(token: token)
            if vocabulary.endTokens.contains(token) { constraint = start }
        }
    }

    /// Whether a text is a prefix of what a schema allows, and whether it is complete.
    private func reads(_ text: String, _ schema: String) throws -> (isPrefix: Bool, isComplete: Bool) {
        let (_, vocabulary, start) = try constraint(schema)
        var constraint = start
        for byte in text.utf8 {
            let token = try #require(vocabulary.bytes.firstIndex(of: [byte]))
            do { try constraint.accept(token: token) } catch { return (false, false) }
        }
        return (true, constraint.isComplete)
    }

    @Test(
        arguments: [
            // JSON's grammar.
            ("{}", " 1", true), ("{}", "  1", false), ("{}", "01", false), ("{}", "-0.5e+10", true),
            ("{}", "1.", nil),
            ("{}", "1e", nil), ("{}", "\"\\u00e9\\ud83d\\ude00\"", true), ("{}", "\"\\ud83d\"", false),
            ("{}", "\"\\ud83dx", false),
            ("{}", "\"\\udc00", false), ("{}", "\"\n", false), ("{}", "\"\u{7f}é漢😀\"", true),
            ("{}", "[1,\n    2]", true),
            ("{}", "[1 ,", false), ("{}", "[1, ]", false), ("{}", "{\"a\": 1, }", false), ("{}", "{ }", true),
            ("{}", "[]x", false),
            ("{}", "tru", nil), ("{}", "truf", false), ("{}", "[1]\n", false),
            // Order, required and additional properties.
            (schemas[1], #"{"name": "", "tags": [""]}"#, true), (schemas[1], #"{"tags""#, false),
            (schemas[1], #"{"name": "x", "age": 120, "tags": ["abc", "", "é"]}"#, true),
            (schemas[1], #"{"name": "x", "age": 121"#, false), (schemas[1], #"{"name": "x", "age": -3"#, nil),
            (schemas[1], #"{"name": "x"}"#, false), (schemas[1], #"{"name": "x", "tags": ["abcd"#, false),
            (schemas[1], #"{"name": "x", "tags": ["a", "b", "c", "#, false),
            (schemas[13], #"{"ab": "xy", "ab":"#, false), (schemas[13], #"{"ab": "xy", "b": [], "abc": 1}"#, true),
            (schemas[13], #"{"ab": "xy", "\u0061"#, false), (schemas[13], #"{"a": null, "ab": "x"}"#, false),
            // Literals, one of which begins another.
            (schemas[3], "1", true), (schemas[3], "12", true), (schemas[3], "13", false), (schemas[3], "1.5", true),
            (schemas[3], #"{"x": [1, {"y": "z"}]}"#, true), (schemas[3], #""é\"\\\n""#, true),
            // Bounds and patterns.
            (#"{"type": "integer", "minimum": 7, "maximum": 7}"#, "7", true),
            (#"{"type": "integer", "minimum": 7, "maximum": 7}"#, "70", false),
            (#"{"type": "integer", "exclusiveMinimum": -10.5, "maximum": -2}"#, "-1", nil),
            (#"{"type": "number", "minimum": 0.5, "maximum": 0.75}"#, "0.75", true),
            (#"{"type": "number", "minimum": 0.5, "maximum": 0.75}"#, "0.751", false),
            (#"{"type": "number", "exclusiveMinimum": 0}"#, "0.00000", nil),
            (#"{"type": "number", "minimum": 0}"#, "-", false),
            (#"{"type": "string", "format": "date"}"#, "\"2024-02-29\"", true),
            (#"{"type": "string", "format": "date"}"#, "\"2023-02-29", false),
            (#"{"type": "string", "format": "date"}"#, "\"2100-02-29", false),
            (#"{"type": "string", "format": "date"}"#, "\"2000-04-31", false),
            (#"{"type": "string", "pattern": "^a|b$"}"#, "\"axx\"", true),
            (#"{"type": "string", "pattern": "^a|b$"}"#, "\"xxb\"", true),
            (#"{"type": "string", "pattern": "^a|b$"}"#, "\"xx\"", false),
            (#"{"type": "string", "pattern": "^[a\\-]+$"}"#, "\"-\\u0061\"", true),
            (#"{"type": "string", "pattern": "^.$"}"#, "\"\\n", false),
            (#"{"type": "string", "pattern": "^x{2,3}$"}"#, "\"x\"", false),
        ] as [(String, String, Bool?)])
    func textsAreReadAsTheSchemaSays(schema: String, text: String, isComplete: Bool?) throws {
        let result = try reads(text, schema)
        // `nil` is a prefix that must go on.
        #expect(result == (isComplete != false, isComplete == true), "\(schema): \(text)")
    }

    @Test(arguments: [
        (#"{"type": "string", "contentEncoding": "base64"}"#, "contentEncoding"),
        (#"{"patternProperties": {}}"#, "patternProperties"),
        (#"{"not": {}}"#, "not"), (#"{"type": "integer", "multipleOf": 2}"#, "multipleOf"),
        (#"{"type": "text"}"#, "text"),
        (#"{"type": "array", "uniqueItems": true}"#, "uniqueItems"), (#"{"type": "string", "format": "iri"}"#, "iri"),
        (#"{"type": "string", "pattern": "(?=a)b"}"#, "look-around"),
        (#"{"type": "string", "pattern": "(a)\\1"}"#, "\\1"),
        (#"{"type": "string", "pattern": "a\\b"}"#, "\\b"), (#"{"type": "string", "pattern": "("}"#, "unmatched"),
        (##"{"$ref": "#/$defs/none"}"##, "leads nowhere"), (#"{"$ref": "other.json"}"#, "other.json"),
        (##"{"$ref": "#"}"##, "satisfies"), (##"{"anyOf": [{"$ref": "#"}]}"##, "satisfies"), ("false", "satisfies"),
        (##"{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}"##, "satisfies"),
        (#"{"type": "integer", "minimum": 3, "maximum": 2}"#, "satisfies"),
        (#"{"type": "string", "minLength": 3, "maxLength": 2}"#, "satisfies"),
        (#"{"type": "array", "minItems": 3, "maxItems": 2}"#, "satisfies"), (#"{"enum": []}"#, "satisfies"),
        (#"{"type": "string", "pattern": "a$b"}"#, "satisfies"),
        (#"{"required": ["a"], "additionalProperties": false}"#, "'a'"),
        (##"{"allOf": [{"$ref": "#"}]}"##, "refers to itself"), (#"{"anyOf": []}"#, "anyOf"), (#"[1]"#, "no schema"),
        (#"{"#, "not valid JSON"),
        (#"{"type": "integer", "minimum": "1"}"#, "minimum"), (#"{"type": "number", "minimum": 1e300}"#, "minimum"),
        (#"{"enum": [1], "minimum": 0}"#, "minimum"), (#"{"type": "string", "minLength": -1}"#, "minLength"),
        (#"{"type": "array", "items": [{}]}"#, "prefixItems"), (#"{"properties": {"a": 1}}"#, "schema.a"),
    ])
    func unsupportedSchemasAreErrorsByName(schema: String, name: String) throws {
        let error = try #require(throws: PEFTError.self) { try constraint(schema) }
        #expect(error.description.contains(name), "\(error)")
    }

    /// They end in an error or in a constraint, in little time and memory.
    @Test func hostileSchemasAreBounded() throws {
        func nested(_ depth: Int, _ open: String, _ close: String) -> String {
            String(repeating: open, count: depth) + "{}" + String(repeating: close, count: depth)
        }
        let array = #"{"type": "array", "minItems": 1, "items": "#
        #expect(throws: PEFTError.self) { try constraint(nested(70, array, "}")) }
        #expect(throws: PEFTError.self) { try constraint(nested(5_000, array, "}")) }
        _ = try constraint(nested(60, array, "}"))
        // 2⁴⁰ ways through the references, which are two alternatives.
        let chain = (0..<40).map {
            ##""d\##($0)": {"anyOf": [{"$ref": "#/$defs/d\##($0 + 1)"}, {"$ref": "#/$defs/d\##($0 + 1)"}]}"##
        }.joined(separator: ",")
        _ = try constraint(##"{"$ref": "#/$defs/d0", "$defs": {\##(chain), "d40": {"type": "null"}}}"##)
        let many = (0..<3_000).map { "\"value \($0 * 7919 % 3_000)\"" }.joined(separator: ",")
        let (_, vocabulary, start) = try constraint(#"{"enum": [\#(many)]}"#)
        #expect(try sequence(start, vocabulary, seed: 1).constraint.isComplete)
        let objects = (0..<200).map { #"{"type": "object", "properties": {"p\#($0)": {}}}"# }.joined(separator: ",")
        #expect(throws: PEFTError.self) { try constraint(#"{"anyOf": [\#(objects)]}"#) }
        for pattern in ["(a|aa)*(b|[^c]){900}x{900}y", "^(x?){500}(.*a.{18})$", String(repeating: "(", count: 300)] {
            let schema: JSON = ["type": "string", "pattern": .string(pattern)]
            #expect(throws: PEFTError.self) { try constraint(schema.text()) }
        }
        // 2³⁰ parts of 'allOf', a class of many ranges with a length, and braces that begin no repetition.
        let parts = (0..<30).map {
            ##""d\##($0)": {"allOf": [{"$ref": "#/$defs/d\##($0 + 1)"}, {"$ref": "#/$defs/d\##($0 + 1)"}]}"##
        }.joined(separator: ",")
        let all = ##"{"allOf": [{"$ref": "#/$defs/d0"}], "$defs": {\##(parts), "d30": {"type": "null"}}}"##
        #expect(throws: PEFTError.self) { try constraint(all) }
        let ranges = String(String.UnicodeScalarView((0..<1_000).compactMap { Unicode.Scalar(0x4E00 + 2 * $0) }))
        let long: JSON = ["type": "string", "pattern": .string("^[\(ranges)]*$"), "minLength": 19_000]
        #expect(throws: PEFTError.self) { try constraint(long.text()) }
        for count in [9_000, 200_000] {
            let braces: JSON = ["type": "string", "pattern": .string("a" + String(repeating: "{", count: count))]
            #expect(throws: PEFTError.self) { try constraint(braces.text()) }
        }
        // 40 kinds of arrays of 40 kinds of arrays.
        let kinds = (0..<40).map { kind in
            let arrays = (0..<40).map { ##"{"type": "array", "items": {"$ref": "#/$defs/v\##($0)"}}"## }
            return #""v\#(kind)": {"anyOf": [\#(arrays.joined(separator: ","))]}"#
        }.joined(separator: ",")
        #expect(throws: PEFTError.self) {
            try constraint(##"{"$ref": "#/$defs/v0", "$defs": {\##(kinds)}}"##)
        }
        // Arrays in arrays, in two ways at each of 64 levels.
        let (_, _, both) = try constraint(Self.schemas[14])
        var mask = TokenMask(vocabulary: vocabulary.size)
        var deep = both
        let opening = try #require(vocabulary.bytes.firstIndex(of: [0x5B]))
        for _ in 0..<64 { try deep.accept(token: opening) }
        deep.allow(into: &mask)
        #expect(!mask.contains(opening) && !mask.isEmpty)
    }

    @Test func vocabulariesWithoutAllBytesAreRejected() throws {
        let bytes = (0..<255).map { [UInt8($0)] }
        #expect(throws: Never.self) { try ConstraintVocabulary(bytes: bytes, endTokens: []) }
        let error = try #require(throws: PEFTError.self) {
            try ConstraintVocabulary(bytes: bytes.filter { $0 != [0x7B] }, endTokens: [])
        }
        #expect(error.description.contains("0x7B"))
        let tinyT5 = try Tokenizer.load(folder: Checkout.tinyT5)
        #expect(throws: PEFTError.self) {
            try ConstraintVocabulary(tinyT5, size: tinyT5.vocabularySize, endTokens: [1])
        }
    }

    @Test func responseFormatsAreThoseOfOpenAI() throws {
        func format(_ text: String) throws -> ResponseFormat? {
            try ResponseFormat.parse(OrderedJSON.parse(text.utf8, name: "request"))
        }
        #expect(try format(#"{"type": "text"}"#) == nil && format(#"{"type": "json_object"}"#) == .jsonObject)
        let schema = #"{"type": "object", "properties": {"b": {}, "a": {}}}"#
        let parsed = try format(
            #"{"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": \#(schema)}}"#)
        #expect(try parsed == ResponseFormat.schema(Array(schema.utf8), name: "schema"))
        for text in [#"{"type": "xml"}"#, "{}", #"{"type": "json_schema", "json_schema": {}}"#] {
            #expect(throws: PEFTError.self) { try format(text) }
        }
    }

    /// A model generates under a constraint: greedily and sampling, alone and in a batch, with equal texts.
    @Test func generatorsKeepToTheConstraint() throws {
        let folder = Checkout.root.appendingPathComponent("Tests/TrainingTests/Fixtures/chat/model")
        let model = try ModelFolder(folder).load()
        let (tokenizer, _) = try #require(Self.vocabularies[.byteLevel]).get()
        let settings = try GenerationSettings(GenerateParameters(), for: model)
        let vocabulary = try ConstraintVocabulary(
            tokenizer, size: model.vocabularySize, endTokens: settings.endTokens)
        let schema = #"{"type": "array", "items": {"enum": ["x", 1, {"a": null}]}, "minItems": 2, "maxItems": 3}"#
        let constraint = try JSONConstraint(.schema(Array(schema.utf8), name: "schema"), vocabulary)
        let validator = SchemaValidator(root: try JSON.parse(Data(schema.utf8), name: "schema"))
        let prompts = ["Hello", "How are you?", "x"].map { tokenizer.encode(text: $0) }
        for parameters in [
            GenerateParameters(maxNewTokens: 200), GenerateParameters(maxNewTokens: 200, temperature: 1.5, seed: 3),
            // What these settings exclude comes nevertheless, if nothing else is allowed.
            GenerateParameters(maxNewTokens: 200, minNewTokens: 150, noRepeatNgram: 1),
        ] {
            let generator = try Generator(model, parameters)
            let texts = try generator.generate(prompts, constraint: constraint)
            for (number, tokens) in texts.enumerated() {
                let text = tokenizer.decode(tokens: tokens)
                #expect(try validator.problem(JSON.parse(Data(text.utf8), name: "text")) == nil, "\(text)")
                let alone = try generator.generate([prompts[number]], constraint: constraint, numbers: [number])
                #expect(alone == [tokens])
            }
        }
        let beams = try Generator(model, GenerateParameters(beams: 2))
        #expect(throws: PEFTError.self) { try beams.generate(prompts, constraint: constraint) }
    }
}
