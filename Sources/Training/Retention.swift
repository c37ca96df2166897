import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Torch

/// General text for measuring forgetting: the change of its loss through training on another task.
///
/// The text is split into pieces. An encoder-decoder reads the first half of each and predicts the second (prefix
/// language modeling, Raffel et al. 2020, section 3.2.3); a decoder-only model predicts all but a piece's first token. If the
/// tokenizer adds a begin token, that is each piece's first token, as in training; special tokens occur nowhere else in it.
package struct Retention: Sendable {
    package let name: String
    package let pieces: [EncodedExample]

    /// - Parameters:
    ///   - file: plain text, or rows with a field `text`.
    ///   - pieceTokens: tokens per piece.
    ///   - limit: maximum number of pieces, spread evenly over the file.
    /// - Throws: ``PEFTError`` if the file can't be read or is too short, or if the model doesn't generate text.
    package init(
        _ file: URL, tokenizer: Tokenizer, head: ModelHead, architecture: Architecture, pieceTokens: Int = 128,
        limit: Int = 64
    ) throws {
        guard head.task.generates else {
            throw PEFTError(
                "--retain measures the language-modeling loss, which a model for \(head.task.rawValue) doesn't have",
                remedy: "omit --retain")
        }
        name = file.lastPathComponent
        let text = try Self.text(file)
        let begin = Self.beginToken(of: tokenizer).map { [$0] } ?? []
        let textTokens = max(1, pieceTokens - begin.count)
        var ids: [Int] = []
        for line in text.split(whereSeparator: \.isNewline) {
            var tokens = tokenizer.encode(text: String(line), addSpecialTokens: false)[...]
            // Nor those that the text spells out at the ends of its lines.
            if let begin = tokenizer.bosTokenID, tokens.first == begin { tokens.removeFirst() }
            if let end = tokenizer.eosTokenID, tokens.last == end { tokens.removeLast() }
            ids += tokens
            // The rest of a large file would not be used.
            if ids.count > textTokens * limit * 8 { break }
        }
        let count = ids.count / textTokens
        guard count >= 1 else {
            throw PEFTError(
                "\(file.path) has only \(counted(ids.count, "token"))",
                remedy: "--retain needs at least \(textTokens)")
        }
        let used = min(count, limit)
        pieces = (0..<used).map { index in
            let start = index * count / used * textTokens
            let piece = begin + ids[start..<(start + textTokens)]
            let read = architecture == .decoder ? 1 : pieceTokens / 2
            let end = tokenizer.eosTokenID.map { architecture == .encoderDecoder ? [$0] : [] } ?? []
            return EncodedExample(input: Array(piece[..<read]) + end, target: Array(piece[read...]))
        }
    }

    /// The begin token that the tokenizer adds to a text; `nil` if it adds none.
    private static func beginToken(of tokenizer: Tokenizer) -> Int? {
        tokenizer.bosTokenID.flatMap { tokenizer.encode(text: "").first == $0 ? $0 : nil }
    }

    /// The field `text` of rows, or the contents of a text file.
    private static func text(_ file: URL) throws -> String {
        let source = DataSource(file)
        let format = (try? DataFormat(fileName: file.lastPathComponent)) ?? .text
        guard format != .text else { return String(decoding: try DataSet.contents(source), as: UTF8.self) }
        return try DataSet.read(source).map { row in
            guard let text = row["text"]?.string else {
                throw PEFTError("\(row.location) has no field 'text'", remedy: "pass plain text to --retain")
            }
            return text
        }.joined(separator: "\n")
    }

    /// Loss per token, in nats.
    package func loss(of model: any LanguageModel, batchSize: Int = 8) throws -> Double {
        try model.meanLoss(pieces, batchSize: batchSize)
    }
}

/// The loss on general text before and after training.
package struct RetentionResult: Codable, Sendable {
    /// Name of the text's file.
    package var text: String
    /// Nats per token.
    package var before: Double
    package var after: Double

    package init(text: String, before: Double, after: Double) {
        (self.text, self.before, self.after) = (text, before, after)
    }
}
