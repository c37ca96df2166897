import Foundation
import PEFTSupport

/// Which tokens have a role, from `tokenizer_config.json` and, where that is silent, `special_tokens_map.json`.
struct SpecialTokens {
    var pad: String?
    var eos: String?
    var unknown: String?
    var bos: String?
    var cls: String?
    var sep: String?
    var mask: String?
    var maximumLength: Int?
    /// `clean_up_tokenization_spaces`.
    var cleansSpaces = false
    /// How many `<extra_id_…>` tokens a T5 vocabulary has.
    var extraIDs: Int?
    /// The class that Python's transformers would use, as in `T5Tokenizer`.
    var tokenizerClass: String?
    /// The tokens that the files name, those with ids in order of these, then those with roles, then others.
    private(set) var declared: [AddedToken] = []
    /// `tokenizer_config.json`, for what only some families have.
    var configuration: StageFields?

    init(folder: URL) throws {
        if GGUFHeader.isName(folder) {
            let file = try GGUFTokenizer(GGUFHeader(folder), name: folder.path)
            try self.init(StageFields(file.configuration, place: "the tokenizer", file: folder.path), map: nil)
            return
        }
        try self.init(
            SpecialTokens.read("tokenizer_config.json", in: folder),
            map: SpecialTokens.read("special_tokens_map.json", in: folder))
    }

    /// - Parameters: `tokenizer_config.json` and `special_tokens_map.json`, where they are there.
    init(_ configuration: StageFields?, map: StageFields?) throws {
        self.configuration = configuration
        func token(_ role: String) throws -> String? {
            try configuration.flatMap { try SpecialTokens.token(role, $0) }
                ?? map.flatMap { try SpecialTokens.token(role, $0) }
        }
        pad = try token("pad_token")
        eos = try token("eos_token")
        unknown = try token("unk_token")
        bos = try token("bos_token")
        cls = try token("cls_token")
        sep = try token("sep_token")
        mask = try token("mask_token")
        declared = try configuration.map(SpecialTokens.tokensWithIDs) ?? []
        for role in ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"] {
            let source = try configuration.flatMap { try SpecialTokens.token(role, $0) != nil ? $0 : nil } ?? map
            if let value = source?.values[role] { declared += try SpecialTokens.special(value, source) }
        }
        for list in ["additional_special_tokens", "extra_special_tokens"] {
            for source in [configuration, map] {
                for value in source?.values[list]?.array ?? [] {
                    // As in transformers, a list doesn't make a token special that is there already.
                    declared += try SpecialTokens.special(value, source).map {
                        var token = $0
                        token.keepsKind = true
                        return token
                    }
                }
                // Tokens with names of their own have roles.
                for (_, value) in (source?.values[list]?.object ?? [:]).sorted(by: { $0.key < $1.key }) {
                    declared += try SpecialTokens.special(value, source)
                }
            }
        }
        guard let configuration else { return }
        let fields = configuration.values
        // "No limit" is written as 1e30.
        if let length = fields["model_max_length"]?.double, length >= 1, length <= 1e9 { maximumLength = Int(length) }
        cleansSpaces = fields["clean_up_tokenization_spaces"]?.bool ?? false
        tokenizerClass = fields["tokenizer_class"]?.string
        if let count = fields["extra_ids"], count != .null {
            guard let count = count.int, 0...100_000 ~= count else {
                throw configuration.malformed("extra_ids must be a whole number from 0")
            }
            extraIDs = count
        } else if let tokens = fields["additional_special_tokens"]?.array {
            let count = tokens.count { ($0.string ?? $0["content"]?.string)?.hasPrefix("<extra_id_") == true }
            if count > 0 { extraIDs = count }
        }
    }

    /// Gives roles to the tokens that a family has for them, where the files name none.
    mutating func setDefaults(bos: String?, eos: String?, unknown: String?, pad: String?) {
        self.bos = self.bos ?? bos
        self.eos = self.eos ?? eos
        self.unknown = self.unknown ?? unknown
        self.pad = self.pad ?? pad
    }

    mutating func setDefaults(cls: String, sep: String, mask: String) {
        self.cls = self.cls ?? cls
        self.sep = self.sep ?? sep
        self.mask = self.mask ?? mask
    }

    /// `"added_tokens_decoder": {"32000": {"content": "<pad>", …}}`, in order of ids.
    private static func tokensWithIDs(_ configuration: StageFields) throws -> [AddedToken] {
        guard configuration.values["added_tokens_decoder"]?.object != nil else { return [] }
        let tokens = try configuration.object("added_tokens_decoder")
        return try tokens.values.keys.compactMap(Int.init).sorted().map { id in
            try added(tokens.object("\(id)"))
        }
    }

    private static func special(_ value: JSON, _ source: StageFields?) throws -> [AddedToken] {
        if let content = value.string { return [AddedToken(content: content, special: true)] }
        guard let source, value.object != nil else { return [] }
        var token = try added(StageFields(value, place: source.place, file: source.file))
        token.special = true
        return [token]
    }

    private static func added(_ fields: StageFields) throws -> AddedToken {
        let isSpecial = try fields.bool("special", default: false)
        return AddedToken(
            content: try fields.string("content"), special: isSpecial,
            normalized: try fields.bool("normalized", default: !isSpecial),
            singleWord: try fields.bool("single_word", default: false),
            lstrip: try fields.bool("lstrip", default: false), rstrip: try fields.bool("rstrip", default: false))
    }

    private static func read(_ name: String, in folder: URL) throws -> StageFields? {
        let file = folder.appendingPathComponent(name)
        guard FileManager.default.fileExists(atPath: file.path) else { return nil }
        return try StageFields(JSON.read(file), place: "the file", file: file.path)
    }

    /// A token is a string, or an object that describes an added token.
    private static func token(_ role: String, _ fields: StageFields) throws -> String? {
        switch fields.values[role] {
        case nil, .null: return nil
        case .string(let content): return content
        case .object(let token)?:
            if let content = token["content"]?.string { return content }
            fallthrough
        default: throw fields.malformed("\(role) must be a string or an object with its content")
        }
    }
}
