import Foundation
import PEFTSupport

/// What `tokenizer.json` holds: the stages, and the tokens beside the model's vocabulary. Its truncation and
/// padding are not read: how long a batch is, is the caller's matter.
struct TokenizerFile {
    let normalizer: (any Normalizer)?
    let preTokenizer: (any PreTokenizer)?
    let model: any TokenizerModel
    let postProcessor: PostProcessor?
    let decoder: (any Decoder)?
    let added: AddedVocabulary

    /// - Parameter declared: the added tokens of the files beside it.
    init(_ file: URL, declared: [AddedToken] = []) throws {
        try self.init(readFile(file), declared: declared, name: file.path)
    }

    init(_ data: Data, declared: [AddedToken] = [], name: String) throws {
        let tables = try ModelTables(cuttingFrom: data, name: name)
        let content: Content
        do { content = try JSONDecoder().decode(Content.self, from: tables.rest) } catch {
            throw TokenizerFile.explain(error, name)
        }
        if let version = content.version, version != "1.0" {
            throw PEFTError("\(name): version \(version) of the format is not supported", remedy: "use version 1.0")
        }
        func stage<Stage>(
            _ json: JSON?, _ place: String, _ read: (StageFields) throws -> Stage
        ) throws -> Stage? {
            try json.map { try read(StageFields($0, place: place, file: name)) }
        }
        normalizer = try stage(content.normalizer, "normalizer", readNormalizer)
        preTokenizer = try stage(content.preTokenizer, "pre_tokenizer", readPreTokenizer)
        postProcessor = try stage(content.postProcessor, "post_processor", readPostProcessor)
        decoder = try stage(content.decoder, "decoder", readDecoder)
        model = try content.model.make(tables, file: name)
        let entries = content.addedTokens ?? []
        try TokenizerFile.check(entries, name)
        added = try AddedVocabulary(
            entries.map(\.token), declared: declared, model: model, normalizer: normalizer, file: name)
    }

    private struct Content: Decodable {
        var version: String?
        var addedTokens: [AddedEntry]?
        var normalizer: JSON?
        var preTokenizer: JSON?
        var postProcessor: JSON?
        var decoder: JSON?
        var model: ModelFile

        enum CodingKeys: String, CodingKey {
            case version, normalizer, decoder, model
            case addedTokens = "added_tokens"
            case preTokenizer = "pre_tokenizer"
            case postProcessor = "post_processor"
        }
    }

    private struct AddedEntry: Decodable {
        let id: Int
        let token: AddedToken

        init(from decoder: any Swift.Decoder) throws {
            enum Key: String, CodingKey { case id }
            id = try decoder.container(keyedBy: Key.self).decode(Int.self, forKey: .id)
            token = try AddedToken(from: decoder)
        }
    }

    private static func check(_ entries: [AddedEntry], _ name: String) throws {
        var seen: [Int: String] = [:]
        for entry in entries {
            guard 0...Int(Int32.max) ~= entry.id else {
                throw PEFTError(
                    "\(name): the added token \(entry.token.content) has the id \(entry.id)",
                    remedy: "ids are non-negative integers")
            }
            if let other = seen.updateValue(entry.token.content, forKey: entry.id), other != entry.token.content {
                throw PEFTError(
                    "\(name): the added tokens \(other) and \(entry.token.content) both have the id \(entry.id)",
                    remedy: "the file may be damaged")
            }
        }
    }

    /// The file's error as one that says where it stands, as in `model.vocab[17][1]`.
    private static func explain(_ error: any Error, _ name: String) -> PEFTError {
        if let error = error as? PEFTError { return PEFTError("\(name): \(error.problem)", remedy: error.remedy) }
        let (context, what): (DecodingError.Context?, String) =
            switch error {
            case DecodingError.keyNotFound(let key, let context): (context, "\(key.stringValue) is missing")
            case DecodingError.typeMismatch(let type, let context): (context, "expected \(type)")
            case DecodingError.valueNotFound(let type, let context): (context, "expected \(type), found null")
            case DecodingError.dataCorrupted(let context): (context, "not valid JSON, or a value out of range")
            default: (nil, "can't be read")
            }
        let place = context?.codingPath.reduce(into: "") { path, key in
            if let index = key.intValue {
                path += "[\(index)]"
            } else {
                path += (path.isEmpty ? "" : ".") + key.stringValue
            }
        }
        let prefix = place.map { $0.isEmpty ? "" : "\($0): " } ?? ""
        return PEFTError("\(name): \(prefix)\(what)", remedy: "the file may be truncated or damaged")
    }
}

/// A file's bytes.
/// - Throws: ``PEFTError`` naming the file.
func readFile(_ file: URL) throws -> Data {
    do { return try Data(contentsOf: file) } catch {
        throw PEFTError("can't read \(file.path)", remedy: "check that the file exists and is readable")
    }
}
