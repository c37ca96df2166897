import PEFTSupport

/// The languages of a text and of its translation, by the codes of a tokenizer, such as `eng_Latn`.
public struct TranslationLanguages: Sendable, Hashable {
    /// The language of the text that the model reads; `nil` for the tokenizer's own.
    public var source: String?
    /// The language of the text that the model writes; `nil` for the tokenizer's own.
    public var target: String?

    /// - Parameters:
    ///   - source: language of the text that the model reads.
    ///   - target: language of the text that the model writes.
    public init(source: String? = nil, target: String? = nil) { (self.source, self.target) = (source, target) }

    package var isEmpty: Bool { source == nil && target == nil }
}

/// The tokens by which a multilingual tokenizer marks the language of a text (mBART, NLLB, M2M-100).
struct LanguageTokens: Sendable {
    /// Where the language stands.
    enum Layout: Sendable {
        /// `[language] text </s>`
        case prefix
        /// `text </s> [language]`
        case suffix
    }

    let layout: Layout
    /// The ids of the tokens by language.
    let ids: [String: Int]
    private let endToken: Int

    /// What `transformers` does for a class of tokenizers, whatever `tokenizer.json` says.
    private static let classes: [String: (layout: Layout, source: String)] = [
        "NllbTokenizer": (.prefix, "eng_Latn"), "MBartTokenizer": (.suffix, "en_XX"),
        "MBart50Tokenizer": (.prefix, "en_XX"), "M2M100Tokenizer": (.prefix, "en"),
    ]

    /// - Parameters:
    ///   - tokens: special tokens with their ids.
    ///   - processor: the post-processor of the file, which shows the layout for a class that isn't known.
    /// - Returns: `nil` for a tokenizer of one language; and the language of a text by default.
    static func find(
        _ tokens: [(content: String, id: Int)], _ roles: SpecialTokens, endToken: Int?, processor: PostProcessor?
    ) -> (languages: LanguageTokens, source: String?, target: String?)? {
        let ids = Dictionary(
            tokens.compactMap { token in code(of: token.content).map { ($0, token.id) } },
            uniquingKeysWith: { first, _ in first })
        guard ids.count > 1, let endToken else { return nil }
        let fields = roles.configuration?.values
        let name = roles.tokenizerClass.map { $0.hasSuffix("Fast") ? String($0.dropLast(4)) : $0 } ?? ""
        var layout: Layout
        if let known = classes[name] {
            layout = known.layout
            if name == "NllbTokenizer", fields?["legacy_behaviour"] == true { layout = .suffix }
        } else {
            let all = Set(ids.values)
            let pieces = processor?.single ?? []
            guard let text = pieces.firstIndex(where: { if case .text = $0 { true } else { false } }),
                let place = pieces.firstIndex(where: {
                    if case .special(let own, _) = $0 { own.contains(where: all.contains) } else { false }
                })
            else { return nil }
            layout = place < text ? .prefix : .suffix
        }
        func known(_ language: String?) -> String? { language.flatMap { ids[$0] == nil ? nil : $0 } }
        return (
            LanguageTokens(layout: layout, ids: ids, endToken: endToken),
            known(fields?["src_lang"]?.string) ?? known(classes[name]?.source), known(fields?["tgt_lang"]?.string)
        )
    }

    /// The language that a token stands for: `eng_Latn`, `en_XX`, or `__en__` for `en`.
    private static func code(of token: String) -> String? {
        let isMarked = token.count > 5 && token.hasPrefix("__") && token.hasSuffix("__")
        if isMarked {
            let code = token.dropFirst(2).dropLast(2)
            return (2...3).contains(code.count) && code.allSatisfy { ("a"..."z").contains($0) } ? String(code) : nil
        }
        let parts = token.split(separator: "_", omittingEmptySubsequences: false)
        guard parts.count == 2, (2...3).contains(parts[0].count), parts[0].allSatisfy({ ("a"..."z").contains($0) })
        else { return nil }
        let isRegion = parts[1].count == 2 && parts[1].allSatisfy { ("A"..."Z").contains($0) }
        let isScript =
            parts[1].count == 4 && ("A"..."Z").contains(parts[1].prefix(1))
            && parts[1].dropFirst().allSatisfy { ("a"..."z").contains($0) }
        return isRegion || isScript ? token : nil
    }

    /// The id of a language's token.
    /// - Throws: ``PEFTError`` for an unknown language, with those near it.
    func id(of language: String) throws -> Int {
        let bare = language.hasPrefix("__") && language.hasSuffix("__") && language.count > 4
        if let id = ids[bare ? String(language.dropFirst(2).dropLast(2)) : language] { return id }
        let wanted = language.lowercased()
        let letters = wanted.prefix { $0.isLetter }
        // `fr`, `fra` and `french` are near `fra_Latn`, `fr_XX` and `fr`.
        var near = ids.keys.sorted().filter {
            let code = $0.lowercased().prefix { $0.isLetter }
            return $0.lowercased() == wanted || code.hasPrefix(letters)
                || letters.count > 2 && letters.hasPrefix(code)
        }
        if near.isEmpty { near = nearestName(to: language, in: ids.keys.sorted()).map { [$0] } ?? [] }
        let known = near.isEmpty ? Array(ids.keys.sorted().prefix(8)) + ["…"] : Array(near.prefix(6))
        throw PEFTError(
            "the tokenizer has no language '\(language)'",
            remedy: near.isEmpty
                ? "it has \(known.joined(separator: ", "))" : "did you mean \(known.joined(separator: ", "))?")
    }

    /// The special tokens around a text of a language.
    func processor(_ language: Int) -> PostProcessor {
        let (mark, end) = (
            PostProcessor.Piece.special([language], type: 0), PostProcessor.Piece.special([endToken], type: 0)
        )
        func around(_ texts: [PostProcessor.Piece]) -> [PostProcessor.Piece] {
            layout == .prefix ? [mark] + texts + [end] : texts + [end, mark]
        }
        return PostProcessor(
            single: around([.text(0, type: 0)]), pair: around([.text(0, type: 0), .text(1, type: 0)]))
    }
}

extension Tokenizer {
    /// Takes the languages from the files: the one that texts have by default, and that of targets, if the files name it.
    mutating func findLanguages(_ roles: SpecialTokens) {
        let tokens = added.tokens.filter { added.isSpecial($0.value.content) }.map { ($0.value.content, $0.key) }
        guard
            let found = LanguageTokens.find(tokens, roles, endToken: eosTokenID, processor: postProcessor)
        else { return }
        languages = found.languages
        // As in transformers, which ignores the file's post-processor for these tokenizers.
        if let source = found.source.flatMap({ found.languages.ids[$0] }) {
            postProcessor = found.languages.processor(source)
        }
        targetLanguageID = found.target.flatMap { found.languages.ids[$0] }
    }

    /// The tokenizer for other languages than its own.
    /// - Throws: ``PEFTError`` for a language that it doesn't have.
    public func translating(_ languages: TranslationLanguages) throws -> Tokenizer {
        guard !languages.isEmpty else { return self }
        guard let own = self.languages else {
            throw PEFTError(
                "the tokenizer has no languages, but '\(languages.source ?? languages.target ?? "")' is one",
                remedy: "remove --source-language and --target-language")
        }
        var result = self
        if let source = languages.source { result.postProcessor = own.processor(try own.id(of: source)) }
        if let target = languages.target { result.targetLanguageID = try own.id(of: target) }
        return result
    }

    /// The ids of a text that the model learns to write, with the special tokens of its language.
    package func encode(target text: String) -> [Int] {
        guard let languages, let targetLanguageID else { return encode(text: text) }
        var result = self
        result.postProcessor = languages.processor(targetLanguageID)
        return result.encode(text: text)
    }

    /// Whether the language of a text follows it, rather than preceding it.
    package var hasLanguageAtEnd: Bool { languages?.layout == .suffix }

    /// The language's token in a text that the model learned to write.
    package func language(of target: [Int]) -> Int? {
        guard let languages, let place = languages.layout == .prefix ? target.first : target.last else { return nil }
        return languages.ids.values.contains(place) ? place : nil
    }
}
