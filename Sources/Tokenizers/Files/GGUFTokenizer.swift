import Foundation
import PEFTSupport

/// The tokenizer of a GGUF file, as the files that Hugging Face's readers take.
///
/// llama.cpp knows two kinds that language models have: pieces with scores (SentencePiece's byte-pair encoding, `llama`) and
/// byte-level byte-pair encoding with merges (`gpt2`), the words of which are cut in a way that has a name.
struct GGUFTokenizer {
    private let name: String
    private let settings: [String: GGUFValue]
    private let tokens: [String]
    private let types: [TokenType]
    private let kind: Kind

    enum Kind: String, CaseIterable {
        case sentencePiece = "llama"
        case byteLevel = "gpt2"
    }

    enum TokenType: Int {
        case normal = 1, unknown, control, userDefined, unused, byte
    }

    /// - Throws: ``PEFTError`` where the file has no tokenizer, or one that isn't supported or is damaged.
    init(_ header: GGUFHeader, name: String) throws {
        (self.name, settings) = (name, header.settings)
        guard let model = settings["tokenizer.ggml.model"]?.string else {
            throw PEFTError(
                "\(name) has no tokenizer ('tokenizer.ggml.model')", remedy: "use a file that llama.cpp can run")
        }
        guard let kind = Kind(rawValue: model) else {
            throw PEFTError(
                "\(name): the tokenizer '\(model)' is not supported",
                remedy: "supported are \(Kind.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        self.kind = kind
        guard let tokens = settings["tokenizer.ggml.tokens"]?.list?.strings, !tokens.isEmpty else {
            throw Self.damaged(name, "'tokenizer.ggml.tokens' is missing or not a list of strings")
        }
        self.tokens = tokens
        guard let types = settings["tokenizer.ggml.token_type"]?.list?.numbers else {
            self.types = Array(repeating: .normal, count: tokens.count)
            return
        }
        let known = types.map { Int(exactly: $0).flatMap(TokenType.init) }
        guard known.count == tokens.count, known.allSatisfy({ $0 != nil }) else {
            throw Self.damaged(name, "'tokenizer.ggml.token_type' does not match its \(tokens.count) tokens")
        }
        self.types = known.compactMap { $0 }
    }

    private static func damaged(_ name: String, _ what: String) -> PEFTError {
        PEFTError("\(name): \(what)", remedy: "the file may be damaged; download it again")
    }

    private func id(_ role: String) throws -> Int? {
        guard let value = settings["tokenizer.ggml.\(role)_token_id"] else { return nil }
        guard let id = value.integer else {
            throw Self.damaged(name, "the id of the \(role) token is not an integer")
        }
        // Files have 2³² − 1 for none.
        return tokens.indices.contains(id) ? id : nil
    }

    private func flag(_ key: String, default fallback: Bool) -> Bool {
        settings["tokenizer.ggml.\(key)"]?.flag ?? fallback
    }

    // MARK: Files

    func tokenizer() throws -> Tokenizer {
        let fields = try StageFields(configuration, place: "the tokenizer", file: name)
        return Tokenizer(try TokenizerFile(Data(try text().utf8), name: name), try SpecialTokens(fields, map: nil))
    }

    func files() throws -> [FolderFile] {
        [
            FolderFile(name: "tokenizer.json", text: try text()),
            FolderFile(name: "tokenizer_config.json", text: configuration.text() + "\n"),
        ]
    }

    /// `tokenizer_config.json`.
    var configuration: JSON {
        var fields: [String: JSON] = [
            "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
            "add_bos_token": .bool(addsBegin), "add_eos_token": .bool(flag("add_eos_token", default: false)),
        ]
        let architecture = settings["general.architecture"]?.string ?? ""
        fields["model_max_length"] = settings["\(architecture).context_length"]?.integer.map(JSON.integer)
        for (role, key) in [
            ("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token"),
        ] {
            fields[key] = (try? id(role)).flatMap { $0 }.map { .string(tokens[$0]) }
        }
        if let template = settings["tokenizer.chat_template"]?.string {
            let names = settings["tokenizer.chat_templates"]?.list?.strings ?? []
            let more = names.compactMap { name in
                settings["tokenizer.chat_template.\(name)"]?.string.map { (name, $0) }
            }
            let all = [("default", template)] + more.filter { $0.0 != "default" }
            fields["chat_template"] =
                more.isEmpty
                ? .string(template)
                : .array(all.map { ["name": .string($0.0), "template": .string($0.1)] })
        }
        return .object(fields)
    }

    private var addsBegin: Bool {
        // llama.cpp's defaults where a file doesn't say.
        let usual = kind == .sentencePiece || (try? words())?.addsBegin ?? false
        return flag("add_bos_token", default: usual)
    }

    /// `tokenizer.json`.
    private func text() throws -> String {
        let end = flag("add_eos_token", default: false)
        let begin = try addsBegin ? id("bos") : nil
        var fields: [String: JSON] = [
            "version": "1.0", "truncation": .null, "padding": .null, "added_tokens": addedTokens,
            "post_processor": template(begin: begin, end: try end ? id("eos") : nil),
        ]
        var model: [String: JSON] = [
            "type": "BPE", "dropout": .null, "continuing_subword_prefix": .null, "end_of_word_suffix": .null,
        ]
        let merges: MergeList
        switch kind {
        case .sentencePiece:
            // Only files of T5 and its kin ask for these.
            guard settings["tokenizer.ggml.precompiled_charsmap"] == nil else {
                throw PEFTError(
                    "\(name): a tokenizer that normalizes text is not supported", remedy: "use the model's own folder"
                )
            }
            let addsSpace = flag("add_space_prefix", default: true)
            let spaces: JSON = ["type": "Replace", "pattern": ["String": " "], "content": "▁"]
            let prefix: [JSON] = addsSpace ? [["type": "Prepend", "prepend": "▁"]] : []
            fields["normalizer"] = ["type": "Sequence", "normalizers": .array(prefix + [spaces])]
            fields["pre_tokenizer"] = .null
            let strip: [JSON] = addsSpace ? [["type": "Strip", "content": " ", "start": 1, "stop": 0]] : []
            fields["decoder"] = [
                "type": "Sequence",
                "decoders": .array(
                    [
                        ["type": "Replace", "pattern": ["String": "▁"], "content": " "], ["type": "ByteFallback"],
                        ["type": "Fuse"],
                    ] + strip),
            ]
            model["unk_token"] = try id("unknown").map { .string(tokens[$0]) } ?? .null
            model["fuse_unk"] = true
            model["byte_fallback"] = .bool(types.contains(.byte))
            merges = try scoredMerges()
        case .byteLevel:
            let words = try words()
            fields["normalizer"] = words.normalizes ? ["type": "NFC"] : .null
            fields["pre_tokenizer"] = words.preTokenizer
            fields["decoder"] = [
                "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
            ]
            model["unk_token"] = .null
            model["fuse_unk"] = false
            model["byte_fallback"] = false
            model["ignore_merges"] = .bool(words.ignoresMerges)
            merges = try listedMerges()
        }
        // Tables by hand: pieces differ by their bytes, which keys of Swift's dictionaries don't.
        let head = JSON.object(fields).text(indent: nil).dropLast()
        let rest = JSON.object(model).text(indent: nil).dropLast()
        return "\(head), \"model\": \(rest), \"vocab\": {\(vocabulary)}, \"merges\": [\(merges)]}}"
    }

    /// Text of a list of merges.
    private typealias MergeList = String

    private var vocabulary: String {
        var text = ""
        for (id, token) in tokens.enumerated() where !isFiller(id) {
            if !text.isEmpty { text += ", " }
            JSON.quote(token, into: &text)
            text += ": \(id)"
        }
        return text
    }

    /// What converters put where a model's table has more rows than the tokenizer has tokens.
    private func isFiller(_ id: Int) -> Bool { types[id] == .unused && tokens[id] == "[PAD\(id)]" }

    private var addedTokens: JSON {
        let added = tokens.indices.filter { [.control, .userDefined, .unknown].contains(types[$0]) }
        return .array(
            added.map { id in
                [
                    "id": .integer(id), "content": .string(tokens[id]), "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": .bool(types[id] != .userDefined),
                ]
            })
    }

    private func template(begin: Int?, end: Int?) -> JSON {
        func special(_ id: Int?, _ type: Int) -> [JSON] {
            id.map { [["SpecialToken": ["id": .string(tokens[$0]), "type_id": .integer(type)]]] } ?? []
        }
        func text(_ name: String, _ type: Int) -> [JSON] {
            special(begin, type) + [["Sequence": ["id": .string(name), "type_id": .integer(type)]]]
                + special(end, type)
        }
        var specials: [String: JSON] = [:]
        for id in [begin, end].compactMap({ $0 }) {
            specials[tokens[id]] = [
                "id": .string(tokens[id]), "ids": [.integer(id)], "tokens": [.string(tokens[id])],
            ]
        }
        return [
            "type": "TemplateProcessing", "single": .array(text("A", 0)),
            "pair": .array(text("A", 0) + text("B", 1)), "special_tokens": .object(specials),
        ]
    }

    // MARK: Merges

    private static func append(_ a: some StringProtocol, _ b: some StringProtocol, to text: inout String) {
        if !text.isEmpty { text += ", " }
        text += "["
        JSON.quote(String(a), into: &text)
        text += ", "
        JSON.quote(String(b), into: &text)
        text += "]"
    }

    /// Merges as the file lists them, two pieces with a space between.
    private func listedMerges() throws -> MergeList {
        guard let merges = settings["tokenizer.ggml.merges"]?.list?.strings else {
            throw Self.damaged(name, "'tokenizer.ggml.merges' is missing or not a list of strings")
        }
        var text = ""
        for (index, merge) in merges.enumerated() {
            // A piece of a byte-level vocabulary has no space in it.
            guard let space = merge.utf8.firstIndex(of: 0x20), space > merge.startIndex,
                merge.utf8.index(after: space) < merge.endIndex
            else { throw Self.damaged(name, "merge \(index) is not two pieces with a space between them") }
            Self.append(merge[..<space], merge[merge.utf8.index(after: space)...], to: &text)
        }
        return text
    }

    /// Every way to make a piece of two others is a merge; pieces with higher scores are made first.
    private func scoredMerges() throws -> MergeList {
        guard let scores = settings["tokenizer.ggml.scores"]?.list?.numbers, scores.count == tokens.count,
            scores.allSatisfy({ !$0.isNaN })
        else { throw Self.damaged(name, "'tokenizer.ggml.scores' does not match its \(tokens.count) tokens") }
        let pieces = Set(tokens.map { Array($0.utf8) })
        var text = ""
        // `sorted` is stable, so of equal pieces the earlier one comes first.
        for id in tokens.indices.sorted(by: { scores[$0] > scores[$1] }) where types[id] == .normal {
            let scalars = tokens[id].unicodeScalars
            for middle in scalars.indices.dropFirst() {
                let (a, b) = (String(scalars[..<middle]), String(scalars[middle...]))
                guard pieces.contains(Array(a.utf8)), pieces.contains(Array(b.utf8)) else { continue }
                Self.append(a, b, to: &text)
            }
        }
        return text
    }

    // MARK: Words

    /// How a byte-level tokenizer cuts text into words.
    private struct Words {
        var preTokenizer: JSON
        var ignoresMerges = false
        var normalizes = false
        var addsBegin = false
    }

    private static let byteLevel: JSON = [
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    ]
    private static let bytesAlone: JSON = [
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false,
    ]

    private static func sequence(_ members: JSON...) -> JSON {
        ["type": "Sequence", "pretokenizers": .array(members)]
    }

    /// The name of words that are cut by an expression; `nil` for another one.
    static func name(ofWordsMatching expression: String) -> String? {
        ["llama-bpe": #"\p{N}{1,3}"#, "qwen2": #"\p{N}"#].first { modernExpression(digits: $0.value) == expression }?
            .key
    }

    private static func words(matching expression: String) -> JSON {
        sequence(
            ["type": "Split", "pattern": ["Regex": .string(expression)], "behavior": "Isolated", "invert": false],
            bytesAlone)
    }

    /// Words as Llama 3 and Qwen 2 cut them, with numbers of some digits.
    private static func modern(digits: String) -> JSON { words(matching: modernExpression(digits: digits)) }

    private static func modernExpression(digits: String) -> String {
        let parts = [
            #"(?i:'s|'t|'re|'ve|'m|'ll|'d)"#, #"[^\r\n\p{L}\p{N}]?\p{L}+"#, digits, #" ?[^\s\p{L}\p{N}]+[\r\n]*"#,
            #"\s*[\r\n]+"#, #"\s+(?!\S)"#, #"\s+"#,
        ]
        return parts.joined(separator: "|")
    }

    /// By `tokenizer.ggml.pre`.
    private static let wordsByName: [String: Words] = [
        "default": Words(preTokenizer: byteLevel), "gpt-2": Words(preTokenizer: byteLevel),
        "smollm": Words(preTokenizer: sequence(["type": "Digits", "individual_digits": true], byteLevel)),
        "llama-bpe": Words(preTokenizer: modern(digits: #"\p{N}{1,3}"#), ignoresMerges: true, addsBegin: true),
        "qwen2": Words(preTokenizer: modern(digits: #"\p{N}"#), normalizes: true),
        "deepseek-r1-qwen": Words(preTokenizer: modern(digits: #"\p{N}"#), normalizes: true),
    ]

    private func words() throws -> Words {
        let name = settings["tokenizer.ggml.pre"]?.string ?? "default"
        // llama.cpp's other names of these.
        let others = [
            "llama3": "llama-bpe", "llama-v3": "llama-bpe", "phi-2": "gpt-2", "olmo": "gpt-2", "mpt": "gpt-2",
            "starcoder": "smollm", "refact": "smollm", "command-r": "smollm",
        ]
        let usual = others[name] ?? name
        guard let words = Self.wordsByName[usual] else {
            throw PEFTError(
                "\(self.name): the pre-tokenizer '\(name)' ('tokenizer.ggml.pre') is not supported",
                remedy: "supported are \(Self.wordsByName.keys.sorted().joined(separator: ", "))")
        }
        return words
    }
}
