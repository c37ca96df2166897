/// A dictionary that keeps insertion order, as Python's does.
package struct JinjaDictionary {
    package private(set) var entries: [(key: JinjaValue, value: JinjaValue)] = []
    private var places: [Key: Int] = [:]

    package init() {}

    package var isEmpty: Bool { entries.isEmpty }
    package var count: Int { entries.count }

    package subscript(key: String) -> JinjaValue? {
        get { places[Key(.string(key))].map { entries[$0].value } }
        set {
            if let newValue { set(Key(.string(key)), to: newValue) } else { remove(key) }
        }
    }

    func value(for key: JinjaValue) throws -> JinjaValue? { places[try Self.hashed(key)].map { entries[$0].value } }

    mutating func set(_ key: JinjaValue, to value: JinjaValue) throws { set(try Self.hashed(key), to: value) }

    private mutating func set(_ key: Key, to value: JinjaValue) {
        if let place = places[key] {
            entries[place].value = value
        } else {
            places[key] = entries.count
            entries.append((key.value, value))
        }
    }

    private mutating func remove(_ key: String) {
        guard let place = places[Key(.string(key))] else { return }
        entries.remove(at: place)
        places = Dictionary(uniqueKeysWithValues: entries.enumerated().map { (Key($1.key), $0) })
    }

    private static func hashed(_ key: JinjaValue) throws -> Key {
        switch key {
        case .list, .dictionary: throw JinjaFailure("unhashable type: '\(key.typeName)'")
        case .tuple(let values):
            for value in values { _ = try hashed(value) }
            return Key(key)
        case .view, .generator, .loop, .function, .namespace, .range:
            throw JinjaFailure("a \(key.typeName) is not supported as a dictionary key")
        default: return Key(key)
        }
    }
}

/// A dictionary key with Python's equality: 1, 1.0 and True are one key, and strings compare by code points.
private struct Key: Hashable {
    let value: JinjaValue

    init(_ value: JinjaValue) { self.value = value }

    static func == (a: Key, b: Key) -> Bool { a.value.isEqual(to: b.value) }

    func hash(into hasher: inout Hasher) {
        switch value {
        case .string(var text), .markup(var text): text.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
        case .boolean(let value): hasher.combine(value ? 1.0 : 0.0)
        case .integer(let value): hasher.combine(Double(value))
        case .number(let value): hasher.combine(value)
        case .tuple(let values): for value in values { Key(value).hash(into: &hasher) }
        default: break
        }
    }
}

/// The views returned by `keys()`, `values()` and `items()`.
package struct DictionaryView {
    enum Part: String { case keys, values, items }
    let dictionary: JinjaDictionary
    let part: Part

    var values: [JinjaValue] {
        switch part {
        case .keys: dictionary.entries.map(\.key)
        case .values: dictionary.entries.map(\.value)
        case .items: dictionary.entries.map { .tuple([$0.key, $0.value]) }
        }
    }
}
