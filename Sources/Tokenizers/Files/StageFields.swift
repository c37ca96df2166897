import PEFTSupport

/// One object of a tokenizer's JSON, with its place, so that every error says which file and where.
struct StageFields {
    let values: [String: JSON]
    /// Where the object stands, as in `normalizer.normalizers[1]`.
    let place: String
    let file: String

    init(_ json: JSON, place: String, file: String) throws {
        guard case .object(let values) = json else {
            throw PEFTError("\(file): \(place) is not an object", remedy: "the file may be damaged")
        }
        self.values = values
        self.place = place
        self.file = file
    }

    /// The stage's `type`.
    func type() throws -> String { try string("type") }

    func string(_ key: String) throws -> String {
        guard let value = values[key]?.string else { throw malformed("\(key) must be a string") }
        return value
    }

    func bool(_ key: String, default fallback: Bool) throws -> Bool {
        switch values[key] {
        case nil, .null: return fallback
        case .bool(let value): return value
        default: throw malformed("\(key) must be true or false")
        }
    }

    /// A number of things: an integer, 0 or above.
    func count(_ key: String) throws -> Int {
        guard let value = values[key]?.int, value >= 0 else {
            throw malformed("\(key) must be a non-negative integer")
        }
        return value
    }

    /// A string of exactly one Unicode scalar.
    func scalar(_ key: String) throws -> Unicode.Scalar {
        let scalars = try string(key).unicodeScalars
        guard let scalar = scalars.first, scalars.count == 1 else { throw malformed("\(key) must be one character") }
        return scalar
    }

    func object(_ key: String) throws -> StageFields {
        guard let value = values[key] else { throw malformed("\(key) is missing") }
        return try StageFields(value, place: "\(place).\(key)", file: file)
    }

    func objects(_ key: String) throws -> [StageFields] {
        guard let items = values[key]?.array else { throw malformed("\(key) must be a list") }
        return try items.enumerated().map { index, item in
            try StageFields(item, place: "\(place).\(key)[\(index)]", file: file)
        }
    }

    func malformed(_ what: String) -> PEFTError {
        PEFTError("\(file): \(place): \(what)", remedy: "the file may be damaged")
    }

    /// The stage that `readers` makes of this object, by its type.
    /// - Throws: ``PEFTError`` naming the type, the file and what is supported.
    func make<Stage>(_ kind: String, _ readers: [String: @Sendable (StageFields) throws -> Stage]) throws -> Stage {
        let type = try type()
        guard let reader = readers[type] else {
            throw PEFTError(
                "\(file): the \(kind) \(type) at \(place) is not supported",
                remedy: "supported are \(readers.keys.sorted().joined(separator: ", "))")
        }
        return try reader(self)
    }
}
