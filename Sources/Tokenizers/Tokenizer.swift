import Foundation
import PEFTSupport

/// Encodes text to token ids and decodes it, from `tokenizer.json` or one of the older file formats.
///
/// Ids and text equal those of Python's `tokenizers` library. A tokenizer is a pipeline: added tokens are split
/// off, a normalizer rewrites the rest, a pre-tokenizer splits it into pieces, the model maps pieces to
/// ids, a post-processor adds special tokens; a decoder maps ids back to text. Each stage has its own folder.
public struct Tokenizer: Sendable {
    let normalizer: (any Normalizer)?
    let preTokenizer: (any PreTokenizer)?
    let model: any TokenizerModel
    var postProcessor: PostProcessor?
    let decoder: (any Decoder)?
    let added: AddedVocabulary
    /// The fused pre-tokenizer and model, for common combinations.
    let joint: (any JointStages)?

    /// The padding token.
    public internal(set) var padTokenID: Int?
    /// The end-of-sequence token.
    public internal(set) var eosTokenID: Int?
    /// The unknown token.
    package internal(set) var unknownTokenID: Int?
    /// The begin-of-sequence token.
    public internal(set) var bosTokenID: Int?
    /// Maximum sequence length in tokens (`model_max_length`); `nil` if there is no limit.
    package internal(set) var maximumLength: Int?
    /// Whether decoding removes spaces before punctuation: see ``SpaceCleaning``.
    var cleansSpaces = false
    /// The tokens that mark a text's language; `nil` for a tokenizer of one language.
    var languages: LanguageTokens?
    /// The token of the language in which targets are written; `nil` if they are marked as all texts.
    package var targetLanguageID: Int?

    /// The ids of `text`.
    /// - Parameters:
    ///   - text: the text.
    ///   - addSpecialTokens: whether to add the special tokens that the model expects, such as T5's `</s>`.
    public func encode(text: String, addSpecialTokens: Bool = true) -> [Int] {
        let ids = ids(of: text)
        guard addSpecialTokens, let postProcessor, !postProcessor.isPlain else { return ids }
        var result: [Int] = []
        result.reserveCapacity(ids.count + 8)
        for piece in postProcessor.single {
            switch piece {
            case .text: result.append(contentsOf: ids)
            case .special(let added, _): result.append(contentsOf: added)
            }
        }
        return result
    }

    /// Decodes `tokens` to text. Ids that are not in the vocabulary are skipped.
    /// - Parameters:
    ///   - tokens: token ids.
    ///   - skipSpecialTokens: whether to skip tokens such as `</s>`.
    public func decode(tokens: [Int], skipSpecialTokens: Bool = true) -> String {
        let pieces = tokens.compactMap { piece(for: $0, skipSpecialTokens: skipSpecialTokens) }
        // Without a decoder the reference puts spaces between the pieces.
        let text = decoder?.decode(pieces).joined() ?? pieces.joined(separator: " ")
        return cleansSpaces ? SpaceCleaning.clean(text) : text
    }

    /// The string of this id in decoded text, if any.
    func piece(for id: Int, skipSpecialTokens: Bool) -> String? {
        guard let piece = token(for: id) else { return nil }
        return skipSpecialTokens && added.isSpecial(piece) ? nil : piece
    }

    /// The piece with this id, as in `▁the`.
    public func token(for id: Int) -> String? {
        added.reading(of: id) ?? model.piece(for: id)
    }

    /// The id of this piece.
    public func id(for token: String) -> Int? {
        added.id(for: token) ?? model.id(for: token)
    }

    /// Whether it is a special token, which decoding may skip.
    package func isSpecial(_ id: Int) -> Bool { token(for: id).map { added.isSpecial($0) } ?? false }

    /// The number of tokens, added ones included.
    public var vocabularySize: Int { model.vocabularySize + added.newTokens }

    /// The ids of a text without special tokens.
    func ids(of text: String) -> [Int] {
        let bytes = Array(text.utf8)
        var ids: [Int] = []
        ids.reserveCapacity(bytes.count / 3)
        for segment in added.segments(of: bytes) {
            switch segment {
            case .token(let id, _): ids.append(id)
            case .text(let range):
                var normalized = NormalizedText(range.count == bytes.count ? bytes : Array(bytes[range]))
                normalizer?.normalize(&normalized)
                let startsText = range.lowerBound == 0 && !normalized.lostStart
                encode(normalized.bytes, startsText: startsText, into: &ids)
            }
        }
        return ids
    }

    private func encode(_ bytes: [UInt8], startsText: Bool, into ids: inout [Int]) {
        for segment in added.segments(ofNormalized: bytes) {
            switch segment {
            case .token(let id, _): ids.append(id)
            case .text(let range):
                if let joint {
                    joint.encode(
                        range.count == bytes.count ? bytes : Array(bytes[range]),
                        startsText: startsText && range.lowerBound == 0, into: &ids)
                    continue
                }
                var pieces = PreTokenizedText(
                    range.count == bytes.count ? bytes : Array(bytes[range]),
                    startsText: startsText && range.lowerBound == 0)
                preTokenizer?.split(&pieces)
                model.tokenize(pieces, into: &ids)
            }
        }
    }
}
