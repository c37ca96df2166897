import Foundation
import PEFTSupport

extension Tokenizer {
    /// The files a tokenizer may consist of, in Hugging Face's layout.
    private static let fileNames = [
        "tokenizer.json", "spiece.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
        "tokenizer.model", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe", "vocab.txt",
        "chat_template.jinja", "chat_template.json",
    ]

    /// Loads a tokenizer from a folder in Hugging Face's layout: `tokenizer.json` or else T5's `spiece.model`,
    /// GPT-2's or RoBERTa's `vocab.json` with `merges.txt`, Llama's `tokenizer.model`, or BERT's `vocab.txt`,
    /// with `tokenizer_config.json` and `special_tokens_map.json` where they are present. Or from a GGUF file.
    /// - Throws: ``PEFTError`` naming the file and what is missing, damaged or unsupported.
    public static func load(folder: URL) throws -> Tokenizer {
        try withTokenizerErrors { try read(folder) }
    }

    private static func read(_ folder: URL) throws -> Tokenizer {
        if GGUFHeader.isName(folder) { return try GGUFTokenizer(GGUFHeader(folder), name: folder.path).tokenizer() }
        var roles = try SpecialTokens(folder: folder)
        let json = folder.appendingPathComponent("tokenizer.json")
        let sentencePiece = folder.appendingPathComponent("spiece.model")
        if FileManager.default.fileExists(atPath: json.path) {
            do { return Tokenizer(try TokenizerFile(json, declared: roles.declared), roles) } catch let error
                as PEFTError
            {
                let other = folder.appendingPathComponent("tokenizer.model")
                guard FileManager.default.fileExists(atPath: other.path) else { throw error }
                throw PEFTError(
                    error.problem,
                    remedy: [error.remedy, "if it is removed, tokenizer.model beside it is used"].compactMap { $0 }
                        .joined(separator: "; "))
            }
        }
        if FileManager.default.fileExists(atPath: sentencePiece.path) {
            return try Tokenizer(try SentencePieceFile(sentencePiece), roles, name: sentencePiece.path)
        }
        if var tokenizer = try OlderFiles.load(folder, &roles) {
            tokenizer.assign(roles)
            return tokenizer
        }
        throw PEFTError(
            "there is no tokenizer in \(folder.path)",
            remedy:
                "it must hold tokenizer.json or spiece.model, tokenizer.model, vocab.json and merges.txt, or vocab.txt"
        )
    }

    /// The tokenizer's files in `folder`, to be saved with a model or adapter; for a GGUF file, equivalent files.
    package static func files(in folder: URL) throws -> [FolderFile] {
        if GGUFHeader.isName(folder) { return try GGUFTokenizer(GGUFHeader(folder), name: folder.path).files() }
        return fileNames.map { folder.appendingPathComponent($0) }
            .filter { FileManager.default.fileExists(atPath: $0.path) }.map { FolderFile(copyOf: $0) }
    }

    init(
        normalizer: (any Normalizer)?, preTokenizer: (any PreTokenizer)?, model: any TokenizerModel,
        postProcessor: PostProcessor?, decoder: (any Decoder)?, added: AddedVocabulary
    ) {
        self.normalizer = normalizer
        self.preTokenizer = preTokenizer
        self.model = model
        self.postProcessor = postProcessor
        self.decoder = decoder
        self.added = added
        joint = jointStages(preTokenizer, model)
        unknownTokenID = model.unknownID
    }

    init(_ file: TokenizerFile, _ roles: SpecialTokens) {
        normalizer = file.normalizer
        preTokenizer = file.preTokenizer
        model = file.model
        postProcessor = file.postProcessor
        decoder = file.decoder
        added = file.added
        joint = jointStages(preTokenizer, model)
        unknownTokenID = model.unknownID
        assign(roles)
    }

    /// Builds the tokenizer that transformers converts from a T5 `spiece.model`: the same stages as in its
    /// `tokenizer.json`, and the extra ids after the pieces, the last one first.
    init(_ file: SentencePieceFile, _ roles: SpecialTokens, name: String) throws {
        // Other families use the same file format with other ids and special tokens.
        if let type = roles.tokenizerClass, !["T5Tokenizer", "T5TokenizerFast"].contains(type) {
            throw PEFTError(
                "\(name): reading it for a \(type) is not supported", remedy: "save the tokenizer as tokenizer.json")
        }
        try file.requireSupported(name)
        let extraTokens = (0..<(roles.extraIDs ?? 100)).reversed().map { "<extra_id_\($0)>" }
        var vocabulary = file.pieces.map { (piece: $0.text, score: Double($0.score)) }
        vocabulary += extraTokens.map { (piece: $0, score: 0) }
        model = try Unigram(
            vocabulary: vocabulary, unknownID: file.unknownID, byteFallback: file.byteFallback, file: name)

        var steps: [any Normalizer] = []
        if !file.characterMap.isEmpty {
            do { steps.append(try Precompiled(file.characterMap)) } catch {
                throw PEFTError("\(name): \(error.what)", remedy: "the file may be damaged")
            }
        }
        let metaspace: Metaspace
        switch (file.removesExtraWhitespaces, file.addsDummyPrefix) {
        case (true, true):
            // T5: every word stands for itself.
            metaspace = Metaspace(prependScheme: .always)
            preTokenizer = PreTokenizerSequence(members: [WhitespaceSplit(), MetaspacePreTokenizer(metaspace)])
        case (let removes, let adds):
            if removes {
                steps += [Strip(left: true, right: true), ReplaceNormalizer(Replacement(runsOf: " ", with: " "))]
            }
            if adds { steps.append(Prepend(" ")) }
            metaspace = Metaspace(prependScheme: .never, split: false)
            preTokenizer = MetaspacePreTokenizer(metaspace)
        }
        joint = jointStages(preTokenizer, model)
        normalizer = steps.isEmpty ? nil : NormalizerSequence(steps)
        decoder = MetaspaceDecoder(
            metaspace: Metaspace(prependScheme: file.addsDummyPrefix ? .always : .never))

        func existing(_ id: Int) -> Int? { file.pieces.indices.contains(id) ? id : nil }
        var eos = existing(file.eosID)
        if let name = roles.eos, let named = model.id(for: name) { eos = named }
        let end = eos.map { [PostProcessor.Piece.special([$0], type: 0)] } ?? []
        postProcessor = PostProcessor(
            single: [.text(0, type: 0)] + end, pair: [.text(0, type: 0)] + end + [.text(1, type: 0)] + end)

        var tokens = file.pieces.compactMap { piece -> AddedToken? in
            switch piece.type {
            case .unknown, .control: AddedToken(content: piece.text, special: true)
            case .userDefined: AddedToken(content: piece.text)
            case .normal, .unused, .byte: nil
            }
        }
        tokens += extraTokens.map { AddedToken(content: $0, special: true) }
        added = try AddedVocabulary(
            tokens, declared: roles.declared, model: model, normalizer: normalizer, file: name)

        padTokenID = existing(file.padID)
        eosTokenID = eos
        bosTokenID = existing(file.bosID)
        unknownTokenID = model.unknownID
        assign(roles)
    }

    /// Takes over the roles that the configuration names.
    private mutating func assign(_ roles: SpecialTokens) {
        padTokenID = roles.pad.flatMap { id(for: $0) } ?? padTokenID
        eosTokenID = roles.eos.flatMap { id(for: $0) } ?? eosTokenID
        bosTokenID = roles.bos.flatMap { id(for: $0) } ?? bosTokenID
        unknownTokenID = roles.unknown.flatMap { id(for: $0) } ?? unknownTokenID
        maximumLength = roles.maximumLength
        // transformers leaves it out for byte-pair encoding, whose spaces are the text's own.
        cleansSpaces = roles.cleansSpaces && !(model is BPE)
        findLanguages(roles)
    }
}
