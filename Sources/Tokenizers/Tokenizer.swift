import Foundation
import Support

/// Turns text into token ids and back: `tokenizer.json`, or one of the older files.
///
/// Ids and text are those of Python's `tokenizers` library. A tokenizer is a pipeline: added tokens are cut
/// out, a normalizer rewrites what is left, a pre-tokenizer cuts it into pieces, the model turns pieces into
/// ids, a post-processor adds special tokens; a decoder leads back. Each stage has a folder of its own.
public struct Tokenizer: Sendable {
    let normalizer: (any Normalizer)?
    let preTokenizer: (any PreTokenizer)?
    let model: any TokenizerModel
    let postProcessor: PostProcessor?
    let decoder: (any Decoder)?
    let added: AddedVocabulary
    /// The pre-tokenizer and the model in one, where they are of the frequent kinds.
    let joint: (any JointStages)?

    /// The id that fills sequences up to the length of a batch.
    public internal(set) var padTokenID: Int?
    /// The id that ends a sequence.
    public internal(set) var eosTokenID: Int?
    /// The id of text that the vocabulary doesn't cover.
    public internal(set) var unknownTokenID: Int?
    /// The id that begins a sequence.
    public internal(set) var bosTokenID: Int?
    /// The longest sequence, in tokens, that the model was made for; `nil` where there is no limit.
    public internal(set) var maximumLength: Int?
    /// Whether decoding removes spaces before punctuation: see ``SpaceCleaning``.
    var cleansSpaces = false

    /// The ids of `text`.
    /// - Parameter addSpecialTokens: whether to add what the model expects around a text, such as T5's `</s>`.
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

    /// The text that `tokens` stand for. Ids that are not in the vocabulary are left out.
    /// - Parameter skipSpecialTokens: whether to leave out tokens such as `</s>`.
    public func decode(tokens: [Int], skipSpecialTokens: Bool = true) -> String {
        let pieces = tokens.compactMap { piece(for: $0, skipSpecialTokens: skipSpecialTokens) }
        // Without a decoder the reference puts spaces between the pieces.
        let text = decoder?.decode(pieces).joined() ?? pieces.joined(separator: " ")
        return cleansSpaces ? SpaceCleaning.clean(text) : text
    }

    /// What stands for this id in decoded text, if anything does.
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

    /// Whether decoding may leave the token out, as it stands for no text.
    public func isSpecial(_ id: Int) -> Bool { token(for: id).map { added.isSpecial($0) } ?? false }

    /// The number of tokens, added ones included.
    public var vocabularySize: Int { model.vocabularySize + added.newTokens }

    /// The ids of a text without anything around it.
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
