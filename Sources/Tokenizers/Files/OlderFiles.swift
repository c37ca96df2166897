import Foundation
import PEFTSupport

/// The files that came before `tokenizer.json`. They hold a vocabulary and perhaps merges; what else a tokenizer
/// does is known from its family.
enum OlderFiles {
    /// GPT-2's names, then those of Hugging Face.
    private static let byteLevelNames = [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")]
    private static let byteLevelFamilies = ["GPT2Tokenizer", "RobertaTokenizer"]
    private static let wordPieceFamilies = ["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"]
    private static let sentencePieceFamilies = ["LlamaTokenizer"]

    /// The tokenizer of the older files in `folder`, `nil` if there are none.
    static func load(_ folder: URL, _ roles: inout SpecialTokens) throws -> Tokenizer? {
        func file(_ name: String) -> URL? {
            let file = folder.appendingPathComponent(name)
            return FileManager.default.fileExists(atPath: file.path) ? file : nil
        }
        for (vocabularyName, mergesName) in byteLevelNames {
            guard let vocabulary = file(vocabularyName), let merges = file(mergesName) else { continue }
            return try byteLevel(vocabulary: vocabulary, merges: merges, &roles)
        }
        if let file = file("tokenizer.model") { return try sentencePieceBPE(file, &roles) }
        return try file("vocab.txt").map { try bert($0, &roles) }
    }

    /// Checks that the configuration, if there is one, names one of the families that the files are read for.
    private static func requireFamily(_ families: [String], _ roles: SpecialTokens, _ file: URL) throws {
        guard let type = roles.tokenizerClass, type != "PreTrainedTokenizerFast" else { return }
        guard families.contains(where: { type == $0 || type == $0 + "Fast" }) else {
            throw PEFTError(
                "\(file.path): reading it for a \(type) is not supported",
                remedy: "save the tokenizer as tokenizer.json")
        }
    }

    // MARK: - GPT-2 and RoBERTa

    /// RoBERTa differs from GPT-2 in its special tokens, with which its vocabulary begins.
    private static func byteLevel(vocabulary file: URL, merges: URL, _ roles: inout SpecialTokens) throws -> Tokenizer
    {
        try requireFamily(byteLevelFamilies, roles, file)
        let vocabulary = try jsonVocabulary(file)
        let isRoberta =
            roles.tokenizerClass?.hasPrefix("Roberta")
            ?? (vocabulary.id(for: "<s>".utf8) == 0 && vocabulary.id(for: "<mask>".utf8) != nil)
        if isRoberta {
            roles.setDefaults(bos: "<s>", eos: "</s>", unknown: "<unk>", pad: "<pad>")
            roles.setDefaults(cls: "<s>", sep: "</s>", mask: "<mask>")
        } else {
            let end = "<|endoftext|>"
            roles.setDefaults(bos: end, eos: end, unknown: end, pad: nil)
        }
        let model = try BPE(
            vocabulary: vocabulary, merges: mergeList(merges), configuration: BPE.Configuration(), file: merges.path)
        let space = try roles.configuration?.bool("add_prefix_space", default: false) ?? false
        return Tokenizer(
            normalizer: nil, preTokenizer: ByteLevelPreTokenizer(addsPrefixSpace: space), model: model,
            postProcessor: isRoberta
                ? PostProcessor.roberta(
                    cls: try id(roles.cls, "cls_token", model, file), sep: try id(roles.sep, "sep_token", model, file)
                )
                : nil,
            decoder: ByteLevelDecoder(),
            added: try specialTokens(roles, maskTakesSpace: isRoberta, model, normalizer: nil, file))
    }

    private static func jsonVocabulary(_ file: URL) throws -> Vocabulary {
        let bytes = try [UInt8](readFile(file))
        guard String(validating: bytes, as: UTF8.self) != nil else {
            throw PEFTError("\(file.path) is not valid UTF-8", remedy: "the file may be truncated or damaged")
        }
        do {
            var scanner = JSONScanner(bytes)
            let vocabulary = try ModelTables.vocabulary(&scanner)
            guard scanner.peek == nil else { throw scanner.failure("unexpected text after the vocabulary") }
            return vocabulary
        } catch let failure as JSONScanner.Failure {
            throw PEFTError(
                "\(file.path): \(failure.message) at byte \(failure.offset)",
                remedy: "the file must hold one object that gives each piece its id")
        }
    }

    /// Reads one merge a line.
    private static func mergeList(_ file: URL) throws -> MergeList {
        var merges = MergeList()
        for (number, line) in try lines(file).enumerated() where !line.isEmpty {
            guard merges.append(line: line) else {
                throw PEFTError(
                    "\(file.path): line \(number + 1) is not two pieces with one space between them",
                    remedy: "the file may be damaged")
            }
        }
        return merges
    }

    // MARK: - BERT

    private static func bert(_ file: URL, _ roles: inout SpecialTokens) throws -> Tokenizer {
        try requireFamily(wordPieceFamilies, roles, file)
        roles.setDefaults(bos: nil, eos: nil, unknown: "[UNK]", pad: "[PAD]")
        roles.setDefaults(cls: "[CLS]", sep: "[SEP]", mask: "[MASK]")
        var vocabulary = Vocabulary(expectedPieces: 1 << 15)
        let pieces = try lines(file)
        guard pieces.count <= Vocabulary.largestID else {
            throw PEFTError("\(file.path) has \(pieces.count) lines", remedy: "is this a vocabulary?")
        }
        for (number, piece) in pieces.enumerated() { vocabulary.insert(Array(piece), id: number) }
        let model = try WordPiece(
            vocabulary: vocabulary, unknownToken: roles.unknown ?? "[UNK]", continuingPrefix: "##", longestWord: 100,
            file: file.path)
        let lowercases = try roles.configuration?.bool("do_lower_case", default: true) ?? true
        let normalizer = BertNormalizer(
            separatesChinese: try roles.configuration?.bool("tokenize_chinese_chars", default: true) ?? true,
            stripsAccents: try roles.configuration?.bool("strip_accents", default: lowercases),
            lowercases: lowercases)
        return Tokenizer(
            normalizer: normalizer, preTokenizer: BertPreTokenizer(), model: model,
            postProcessor: PostProcessor.bert(
                cls: try id(roles.cls, "cls_token", model, file), sep: try id(roles.sep, "sep_token", model, file)),
            decoder: WordPieceDecoder(),
            added: try specialTokens(roles, maskTakesSpace: false, model, normalizer: normalizer, file))
    }

    // MARK: - Llama

    /// A SentencePiece model of byte-pair encoding, whose merges follow from the scores of its pieces.
    private static func sentencePieceBPE(_ file: URL, _ roles: inout SpecialTokens) throws -> Tokenizer {
        try requireFamily(sentencePieceFamilies, roles, file)
        let content = try SentencePieceFile(file)
        try content.requireSupported(file.path, type: .bpe)
        guard content.characterMap.isEmpty, !content.removesExtraWhitespaces else {
            throw PEFTError(
                "\(file.path): a BPE model that normalizes text is not supported",
                remedy: "save the tokenizer as tokenizer.json")
        }
        func piece(_ id: Int) -> String? { content.pieces.indices.contains(id) ? content.pieces[id].text : nil }
        roles.setDefaults(
            bos: piece(content.bosID), eos: piece(content.eosID), unknown: piece(content.unknownID),
            pad: piece(content.padID))
        let (vocabulary, merges) = tables(content)
        let model = try BPE(
            vocabulary: vocabulary, merges: merges,
            configuration: BPE.Configuration(
                unknownToken: piece(content.unknownID), fusesUnknown: true, byteFallback: content.byteFallback),
            file: file.path)
        var steps: [any Normalizer] = []
        if content.addsDummyPrefix { steps.append(Prepend("▁")) }
        steps.append(ReplaceNormalizer(Replacement(of: " ", with: "▁")))
        let normalizer = NormalizerSequence(steps)
        var decoders: [any Decoder] = [
            ReplaceDecoder(replacement: Replacement(of: "▁", with: " ")), ByteFallback(), Fuse(),
        ]
        if content.addsDummyPrefix { decoders.append(StripDecoder(content: " ", start: 1, stop: 0)) }
        func special(_ key: String, default isUsed: Bool, _ name: String?) throws -> [Int] {
            guard try roles.configuration?.bool(key, default: isUsed) ?? isUsed else { return [] }
            return [try id(name, key, model, file)]
        }
        let begin = try special("add_bos_token", default: true, roles.bos)
        let end = try special("add_eos_token", default: false, roles.eos)
        func enclosed(_ text: Int) -> [PostProcessor.Piece] {
            [.special(begin, type: text), .text(text, type: text), .special(end, type: text)]
        }
        let tokens = content.pieces.compactMap { piece -> AddedToken? in
            switch piece.type {
            case .unknown, .control: AddedToken(content: piece.text, special: true)
            case .userDefined: AddedToken(content: piece.text)
            case .normal, .unused, .byte: nil
            }
        }
        return Tokenizer(
            normalizer: normalizer, preTokenizer: nil, model: model,
            postProcessor: PostProcessor(single: enclosed(0), pair: enclosed(0) + enclosed(1)),
            decoder: DecoderSequence(members: decoders),
            added: try AddedVocabulary(
                tokens, declared: roles.declared, model: model, normalizer: normalizer, file: file.path))
    }

    /// Every way to make a piece of two others is a merge; pieces with higher scores are made first.
    private static func tables(_ content: SentencePieceFile) -> (Vocabulary, MergeList) {
        var vocabulary = Vocabulary(expectedPieces: content.pieces.count)
        for (id, piece) in content.pieces.enumerated() { vocabulary.insert(Array(piece.text.utf8), id: id) }
        // `sorted` is stable, so of equal pieces the earlier one comes first.
        let order = content.pieces.indices.sorted { content.pieces[$0].score > content.pieces[$1].score }
        var merges = MergeList()
        for id in order where content.pieces[id].type == .normal {
            let piece = Array(content.pieces[id].text.utf8)
            for middle in piece.indices.dropFirst() where piece[middle] & 0xC0 != 0x80 {
                guard vocabulary.id(for: piece[..<middle]) != nil, vocabulary.id(for: piece[middle...]) != nil else {
                    continue
                }
                merges.append(piece[..<middle], piece[middle...])
            }
        }
        return (vocabulary, merges)
    }

    // MARK: -

    /// The file's lines; "\r\n" ends one too, and what follows the last line break is one if it isn't empty.
    private static func lines(_ file: URL) throws -> [ArraySlice<UInt8>] {
        let bytes = try [UInt8](readFile(file))
        guard String(validating: bytes, as: UTF8.self) != nil else {
            throw PEFTError("\(file.path) is not valid UTF-8", remedy: "the file may be truncated or damaged")
        }
        var lines = bytes.split(separator: 0x0A, omittingEmptySubsequences: false)
        if lines.last?.isEmpty == true { lines.removeLast() }
        return lines.map { $0.last == 0x0D ? $0.dropLast() : $0 }
    }

    private static func id(_ token: String?, _ role: String, _ model: any TokenizerModel, _ file: URL) throws -> Int {
        guard let token, let id = model.id(for: token) else {
            throw PEFTError(
                "\(file.path): the \(role) \(token ?? "") is not in the vocabulary",
                remedy: "name it in tokenizer_config.json, or save the tokenizer as tokenizer.json")
        }
        return id
    }

    /// The tokens that have roles, as added tokens.
    private static func specialTokens(
        _ roles: SpecialTokens, maskTakesSpace: Bool, _ model: any TokenizerModel, normalizer: (any Normalizer)?,
        _ file: URL
    ) throws -> AddedVocabulary {
        var tokens: [AddedToken] = []
        for token in [roles.bos, roles.eos, roles.unknown, roles.sep, roles.pad, roles.cls, roles.mask] {
            guard let token, !tokens.contains(where: { $0.content.utf8.elementsEqual(token.utf8) }) else { continue }
            tokens.append(AddedToken(content: token, special: true, lstrip: maskTakesSpace && token == roles.mask))
        }
        return try AddedVocabulary(
            tokens, declared: roles.declared, model: model, normalizer: normalizer, file: file.path)
    }
}
