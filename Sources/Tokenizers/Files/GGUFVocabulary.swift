import Foundation
import PEFTSupport

/// A tokenizer as the settings of a GGUF file.
package enum GGUFVocabulary {
    /// The settings for the tokenizer in a folder, or in another GGUF file.
    ///
    /// - Parameter size: rows of the model's table of embeddings, each of which has to have a token.
    /// - Throws: ``PEFTError`` naming what llama.cpp's tokenizers don't do.
    package static func settings(folder: URL, size: Int) throws -> [(String, GGUFValue)] {
        if GGUFHeader.isName(folder) {
            return try GGUFHeader(folder).settings.filter { $0.key.hasPrefix("tokenizer.") }
                .sorted { $0.key < $1.key }
        }
        let (json, pieces) = (
            folder.appendingPathComponent("tokenizer.json"), folder.appendingPathComponent("tokenizer.model")
        )
        var content: Content
        if FileManager.default.fileExists(atPath: json.path) {
            content = try Content(json)
        } else if FileManager.default.fileExists(atPath: pieces.path) {
            content = try Content(sentencePiece: SentencePieceFile(pieces), name: pieces.path)
        } else {
            throw PEFTError(
                "there is no tokenizer.json or tokenizer.model in \(folder.path)", remedy: "save the tokenizer as one"
            )
        }
        guard content.tokens.count <= size else {
            throw PEFTError(
                "the tokenizer in \(folder.path) has \(content.tokens.count) tokens, but the model has \(size)",
                remedy: "use the model's own tokenizer")
        }
        for id in content.tokens.count..<size { content.append("[PAD\(id)]", .unused) }
        return try content.settings(Tokenizer.load(folder: folder), chat: folder)
    }

    /// Tokens in order of their ids.
    private struct Content {
        var kind: GGUFTokenizer.Kind
        var tokens: [String] = []
        var types: [GGUFTokenizer.TokenType] = []
        var scores: [Float] = []
        /// Of byte-level tokenizers.
        var merges: [String] = []
        var pre = "default"
        var addsSpace = true

        mutating func append(_ token: String, _ type: GGUFTokenizer.TokenType, score: Float = 0) {
            tokens.append(token)
            types.append(type)
            scores.append(score)
        }

        init(sentencePiece file: SentencePieceFile, name: String) throws {
            try file.requireSupported(name, type: .bpe)
            kind = .sentencePiece
            addsSpace = file.addsDummyPrefix
            for piece in file.pieces {
                append(
                    piece.text, GGUFTokenizer.TokenType(rawValue: Int(piece.type.rawValue)) ?? .normal,
                    score: piece.score)
            }
        }

        init(_ file: URL) throws {
            let tables = try ModelTables(cuttingFrom: readFile(file), name: file.path)
            let json = try JSON.parse(tables.rest, name: file.path)
            func unsupported(_ what: String) -> PEFTError {
                PEFTError(
                    "\(file.path): \(what), which llama.cpp's tokenizers don't support",
                    remedy: "write the model without --to gguf")
            }
            guard json["model"]?["type"]?.string == "BPE", let vocabulary = tables.vocabulary,
                let list = tables.merges
            else { throw unsupported("its model is not byte-pair encoding") }
            let added = (json["added_tokens"]?.array ?? []).compactMap { token -> (Int, String, Bool)? in
                guard let id = token["id"]?.int, let text = token["content"]?.string else { return nil }
                return (id, text, token["special"]?.bool ?? false)
            }
            kind = json["model"]?["byte_fallback"]?.bool == true ? .sentencePiece : .byteLevel
            let unknown = json["model"]?["unk_token"]?.string
            var byID: [Int: (String, GGUFTokenizer.TokenType)] = [:]
            for (piece, id) in vocabulary.entries {
                let text = String(decoding: piece, as: UTF8.self)
                let isByte = kind == .sentencePiece && ByteFallback.byte(text) != nil
                byID[Int(id)] = (text, isByte ? .byte : .normal)
            }
            for (id, text, isSpecial) in added {
                byID[id] = (text, text == unknown ? .unknown : isSpecial ? .control : .userDefined)
            }
            guard let last = byID.keys.max(), last >= 0, last < byID.count * 2 + 1000 else {
                throw unsupported("its ids have large gaps")
            }
            for id in 0...last {
                let (text, type) = byID[id] ?? ("[PAD\(id)]", .unused)
                append(text, type)
            }
            let pairs = list.pairs
            if kind == .byteLevel {
                let normalizer = json["normalizer"] ?? .null
                guard normalizer == .null || normalizer["type"]?.string == "NFC" else {
                    throw unsupported("it normalizes text")
                }
                pre = try Self.pre(json["pre_tokenizer"] ?? .null, unsupported)
                merges = pairs.map { String(decoding: $0.left + [0x20] + $0.right, as: UTF8.self) }
            } else {
                addsSpace = try Self.addsSpace(json, unsupported)
                // What is made earlier has the higher score.
                var score: [[UInt8]: Float] = [:]
                for (rank, pair) in pairs.enumerated() where score[pair.left + pair.right] == nil {
                    score[pair.left + pair.right] = -Float(rank)
                }
                scores = tokens.enumerated().map { id, token in
                    types[id] == .normal ? score[Array(token.utf8)] ?? -Float(pairs.count) : 0
                }
            }
        }

        /// llama.cpp's name for how words are cut.
        private static func pre(_ json: JSON, _ unsupported: (String) -> PEFTError) throws -> String {
            let members = json["pretokenizers"]?.array ?? [json]
            let types = members.map { $0["type"]?.string ?? "" }
            guard let bytes = members.last, types.last == "ByteLevel", bytes["add_prefix_space"]?.bool == false else {
                throw unsupported("it adds a space before the text, or is not byte-level")
            }
            let cuts = bytes["use_regex"]?.bool ?? true
            switch Array(types.dropLast()) {
            case [] where cuts: return "gpt-2"
            case ["Digits"] where cuts && members[0]["individual_digits"]?.bool == true: return "smollm"
            case ["Split"] where !cuts && members[0]["behavior"]?.string == "Isolated":
                let expression = members[0]["pattern"]?["Regex"]?.string ?? ""
                if let name = GGUFTokenizer.name(ofWordsMatching: expression) { return name }
            default: break
            }
            throw unsupported("it has a pre-tokenizer of its own")
        }

        /// Whether a text begins with a space that isn't there.
        private static func addsSpace(_ json: JSON, _ unsupported: (String) -> PEFTError) throws -> Bool {
            let normalizer = json["normalizer"] ?? .null
            let steps = normalizer == .null ? [] : normalizer["normalizers"]?.array ?? [normalizer]
            for step in steps {
                switch step["type"]?.string {
                case "Prepend" where step["prepend"]?.string == "▁": break
                case "Replace" where step["pattern"]?["String"]?.string == " ": break
                default: throw unsupported("it normalizes text")
                }
            }
            if steps.contains(where: { $0["type"]?.string == "Prepend" }) { return true }
            let cut = json["pre_tokenizer"] ?? .null
            guard cut["type"]?.string == "Metaspace" else { return false }
            return (cut["prepend_scheme"]?.string ?? "always") != "never"
        }

        func settings(_ tokenizer: Tokenizer, chat folder: URL) -> [(String, GGUFValue)] {
            var result: [(String, GGUFValue)] = []
            func add(_ key: String, _ value: GGUFValue?) {
                if let value { result.append(("tokenizer.ggml." + key, value)) }
            }
            add("model", .string(kind.rawValue))
            add("pre", .string(pre))
            add("tokens", .list(GGUFList(tokens)))
            if kind == .sentencePiece { add("scores", .list(GGUFList(scores))) }
            add("token_type", .list(GGUFList(types.map { Int32($0.rawValue) })))
            if kind == .byteLevel { add("merges", .list(GGUFList(merges))) }
            func id(_ id: Int?) -> GGUFValue? { id.flatMap { tokens.indices.contains($0) ? .integer($0) : nil } }
            add("bos_token_id", id(tokenizer.bosTokenID))
            add("eos_token_id", id(tokenizer.eosTokenID))
            add("unknown_token_id", id(tokenizer.unknownTokenID))
            add("padding_token_id", id(tokenizer.padTokenID))
            var (before, after) = (false, false)
            for piece in tokenizer.postProcessor?.single ?? [] {
                guard case .special(let ids, _) = piece else { continue }
                before = before || ids == tokenizer.bosTokenID.map { [$0] }
                after = after || ids == tokenizer.eosTokenID.map { [$0] }
            }
            add("add_bos_token", .flag(before))
            add("add_eos_token", .flag(after))
            if kind == .sentencePiece { add("add_space_prefix", .flag(addsSpace)) }
            if let template = try? ChatTemplate.load(folder: folder).template.source {
                result.append(("tokenizer.chat_template", .string(template)))
            }
            return result
        }
    }
}
