import Foundation
import PEFTSupport

/// What a SentencePiece model file (`spiece.model`) holds, as far as encoding needs it.
struct SentencePieceFile {
    enum PieceType: UInt64 {
        case normal = 1, unknown, control, userDefined, unused, byte
    }

    struct Piece {
        var text = ""
        var score: Float = 0
        var type = PieceType.normal
    }

    enum ModelType: UInt64 {
        case unigram = 1, bpe, word, char
    }

    var pieces: [Piece] = []
    // Defaults as in SentencePiece's message definitions.
    var modelType = ModelType.unigram
    var byteFallback = false
    var unknownID = 0
    var bosID = 1
    var eosID = 2
    var padID = -1
    var treatsWhitespaceAsSuffix = false
    /// Empty: text stays as it is.
    var characterMap: [UInt8] = []
    var addsDummyPrefix = true
    var removesExtraWhitespaces = true
    var escapesWhitespaces = true

    init(_ file: URL) throws {
        try self.init(readFile(file), name: file.path)
    }

    init(_ data: Data, name: String) throws {
        do throws(ProtobufReader.Damage) {
            var message = ProtobufReader(Array(data)[...])
            while let (field, value) = try message.next() {
                guard case .bytes(let bytes) = value else { continue }
                switch field {
                case 1: pieces.append(try Self.piece(bytes))
                case 2: try readTrainer(bytes)
                case 3: try readNormalizer(bytes)
                default: break
                }
            }
        } catch {
            throw PEFTError(
                "\(name) is not a SentencePiece model: \(error.what)", remedy: "the file may be truncated or damaged")
        }
        guard !pieces.isEmpty else {
            throw PEFTError(
                "\(name) is not a SentencePiece model: it holds no pieces", remedy: "the file may be damaged")
        }
    }

    /// Checks that the file can be run as it is meant.
    func requireSupported(_ name: String, type: ModelType = .unigram) throws {
        func unsupported(_ what: String) -> PEFTError {
            PEFTError(
                "\(name): \(what) is not supported",
                remedy: "use a unigram model such as T5's or a BPE model such as Llama's")
        }
        guard modelType == type else { throw unsupported("a SentencePiece model of type \(modelType)") }
        guard !treatsWhitespaceAsSuffix else { throw unsupported("treat_whitespace_as_suffix") }
        guard escapesWhitespaces else { throw unsupported("a vocabulary without escaped whitespace") }
    }

    private static func piece(_ bytes: ArraySlice<UInt8>) throws(ProtobufReader.Damage) -> Piece {
        var piece = Piece()
        var message = ProtobufReader(bytes)
        while let (field, value) = try message.next() {
            switch (field, value) {
            case (1, .bytes(let bytes)):
                guard let text = validated(bytes) else { throw ProtobufReader.Damage(what: "a piece is not UTF-8") }
                piece.text = text
            case (2, .fixed32(let bits)): piece.score = Float(bitPattern: bits)
            case (3, .integer(let number)):
                guard let type = PieceType(rawValue: number) else {
                    throw ProtobufReader.Damage(what: "a piece has the unknown type \(number)")
                }
                piece.type = type
            case (1...3, _): throw ProtobufReader.Damage(what: "field \(field) of a piece has the wrong wire type")
            default: break
            }
        }
        return piece
    }

    private mutating func readTrainer(_ bytes: ArraySlice<UInt8>) throws(ProtobufReader.Damage) {
        var message = ProtobufReader(bytes)
        while let (field, value) = try message.next() {
            guard case .integer(let number) = value else { continue }
            switch field {
            case 3:
                guard let type = ModelType(rawValue: number) else {
                    throw ProtobufReader.Damage(what: "the model has the unknown type \(number)")
                }
                modelType = type
            case 24: treatsWhitespaceAsSuffix = number != 0
            case 35: byteFallback = number != 0
            case 40: unknownID = Int(truncatingIfNeeded: number)
            case 41: bosID = Int(truncatingIfNeeded: number)
            case 42: eosID = Int(truncatingIfNeeded: number)
            case 43: padID = Int(truncatingIfNeeded: number)
            default: break
            }
        }
    }

    private mutating func readNormalizer(_ bytes: ArraySlice<UInt8>) throws(ProtobufReader.Damage) {
        var message = ProtobufReader(bytes)
        while let (field, value) = try message.next() {
            switch (field, value) {
            case (2, .bytes(let bytes)): characterMap = Array(bytes)
            case (3, .integer(let number)): addsDummyPrefix = number != 0
            case (4, .integer(let number)): removesExtraWhitespaces = number != 0
            case (5, .integer(let number)): escapesWhitespaces = number != 0
            default: break
            }
        }
    }
}
