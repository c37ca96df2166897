import PEFTSupport

/// Maps each word to its id, or to the unknown token.
struct WordLevel: TokenizerModel {
    let unknownID: Int?
    private let unknown: Int
    private let vocabulary: Vocabulary

    init(vocabulary: Vocabulary, unknownToken: String, file: String) throws {
        guard let id = vocabulary.id(for: unknownToken.utf8) else {
            throw PEFTError(
                "\(file): the unknown token \(unknownToken) is not in the vocabulary",
                remedy: "unk_token must name a piece")
        }
        self.vocabulary = vocabulary
        unknown = Int(id)
        unknownID = unknown
    }

    var vocabularySize: Int { vocabulary.count }
    func piece(for id: Int) -> String? { vocabulary.piece(for: id) }
    func id(for piece: String) -> Int? { vocabulary.id(for: piece.utf8).map { Int($0) } }

    func place(_ piece: [UInt8]) -> [(id: Int, bytes: Range<Int>)] {
        [(vocabulary.id(for: piece).map { Int($0) } ?? unknown, 0..<piece.count)]
    }

    func tokenize(_ text: PreTokenizedText, into ids: inout [Int]) {
        text.bytes.withUnsafeBufferPointer { bytes in
            for piece in text.pieces {
                let id = vocabulary.id(for: UnsafeBufferPointer(rebasing: bytes[piece]))
                ids.append(id.map { Int($0) } ?? unknown)
            }
        }
    }
}
