import Foundation
import PEFTSupport

/// The rows of a JSON file that is one value, or several values that span lines.
///
/// | value | rows |
/// |---|---|
/// | `[{…}, {…}]` | the elements |
/// | `[["a", "b"], …]` | the elements, whose fields are `0`, `1` … |
/// | `{"q": [1, 2], "a": [3, 4]}` | columns of one length, as data frames and Hugging Face's batches have them |
/// | `{"q": {"0": 1, "1": 2}, …}`, `{"0": {"q": 1}, …}`, `{"columns": […], "data": [[…], …]}` | pandas' other orientations |
/// | `{"data": [{…}], …}` | the list, also in `rows`, `examples`, `instances`, `items`, `records` or a lone field |
/// | `{"train": […], "test": […]}` | the list that ``rows(list:)`` names; an error tells which there are |
/// | another object, or several | each is a row |
struct JSONDocument {
    private typealias Member = (name: String, value: JSON, text: ArraySlice<UInt8>)

    private let bytes: [UInt8]
    private let name: String
    private let limit: Int
    private let keepsText: Bool

    /// - Parameter name: the file's name in errors.
    init(_ bytes: [UInt8], name: String, limit: Int, keepsText: Bool) {
        (self.bytes, self.name, self.limit, self.keepsText) = (bytes, name, limit, keepsText)
    }

    /// - Parameter list: the field with the rows; `nil` to detect it.
    /// - Throws: ``PEFTError`` for text that isn't JSON, with line and column, and for rows that aren't objects.
    func rows(list: String?) throws -> [Row] {
        let isArray = bytes.first { ![0x20, 0x09, 0x0A, 0x0D].contains($0) } == UInt8(ascii: "[")
        do {
            if isArray {
                guard list == nil else { throw lacks(list ?? "", "the file is one array") }
                return try elements(bytes[...], name)
            }
            return try objects(list)
        } catch let failure as JSONParser.Failure { throw located(failure) }
    }

    private func located(_ failure: JSONParser.Failure) -> PEFTError {
        let before = bytes[..<failure.offset]
        let line = before.count { $0 == 0x0A } + 1
        let start = before.lastIndex(of: 0x0A).map { $0 + 1 } ?? 0
        let column = String(decoding: before[start...], as: UTF8.self).unicodeScalars.count + 1
        return PEFTError(
            "\(name) line \(line) is not valid JSON: \(failure.message) (column \(column))",
            remedy: "the file must be one array of objects, or one object per line")
    }

    private func lacks(_ list: String, _ has: String) -> PEFTError {
        PEFTError("\(name) has no list '\(list)'", remedy: has)
    }

    // MARK: Arrays and objects

    private func elements(_ text: ArraySlice<UInt8>, _ name: String) throws -> [Row] {
        var rows: [Row] = []
        try JSONParser.elements(of: text) { value, text in
            let location = Row.Location(file: name, number: rows.count + 1, unit: .element)
            if let cells = value.array, cells.allSatisfy({ !$0.isContainer }) {
                let fields = cells.enumerated().map { (String($0), $1) }
                rows.append(Row(Dictionary(fields, uniquingKeysWith: { first, _ in first }), location: location))
            } else {
                rows.append(try DataSet.row(value, location, keepsText ? text : nil))
            }
            return rows.count < limit
        }
        return rows
    }

    private func objects(_ list: String?) throws -> [Row] {
        var found: [(value: JSON, text: ArraySlice<UInt8>)] = []
        try JSONParser.values(of: bytes[...]) { value, text in
            found.append((value, text))
            return found.count < max(limit, 2)
        }
        if found.count == 1, case .object = found[0].value {
            let members = try JSONParser.members(of: found[0].text)
            return try list.map { try rows(of: members, list: $0) } ?? rows(of: members, found[0].text)
        }
        guard list == nil else { throw lacks(list ?? "", "the file has several values") }
        var (line, place) = (1, 0)
        return try found.prefix(limit).map { value, text in
            line += bytes[place..<text.startIndex].count { $0 == 0x0A }
            place = text.startIndex
            return try DataSet.row(value, .init(file: name, number: line), keepsText ? text : nil)
        }
    }

    /// The rows of the requested list.
    private func rows(of members: [Member], list: String) throws -> [Row] {
        guard let member = members.last(where: { $0.name == list }) else {
            let names = members.map(\.name)
            let hint = nearestName(to: list, in: names).map { " — did you mean '\($0)'?" } ?? ""
            throw lacks(list, "it has \(names.joined(separator: ", "))\(hint)")
        }
        let own = "\(name):\(list)"
        switch member.value {
        case .array: return try elements(member.text, own)
        case .object:
            let inner = try JSONParser.members(of: member.text)
            if let rows = try frame(inner, own) { return rows }
        default: break
        }
        throw PEFTError("\(own) is \(member.value.kind)", remedy: "use an array of rows or an object of columns")
    }

    // MARK: What one object holds

    private static let listNames = ["data", "rows", "examples", "instances", "items", "records"]
    private static let splitNames = ["train", "training", "test", "validation", "valid", "val", "dev", "eval"]

    private func rows(of members: [Member], _ text: ArraySlice<UInt8>) throws -> [Row] {
        func row() throws -> [Row] {
            try [
                DataSet.row(
                    JSONParser.parse(text), .init(file: name, number: 1, unit: .element), keepsText ? text : nil)
            ]
        }
        // A chat is a list of objects too.
        if members.contains(where: { Self.areMessages($0.value) }) { return try row() }
        if let rows = try frame(members, name) { return rows }
        let lists = members.filter { Self.areRecords($0.value) }
        if let list = lists.first(where: { Self.listNames.contains($0.name.lowercased()) }) {
            return try elements(list.text, "\(name):\(list.name)")
        }
        let isAllLists = members.allSatisfy { $0.value.array != nil }
        let splits = members.filter { member in
            Self.splitNames.contains(member.name.lowercased()) && member.value.isContainer || isAllLists
        }
        if splits.count > 1, lists.isEmpty || splits.contains(where: { Self.areRecords($0.value) }) || isAllLists {
            throw choice(splits)
        }
        if let list = splits.first, splits.count == 1, Self.areRecords(list.value) {
            return try elements(list.text, "\(name):\(list.name)")
        }
        return try row()
    }

    private func choice(_ lists: [Member]) -> PEFTError {
        let sizes = lists.map { "'\($0.name)' (\($0.value.array?.count ?? $0.value.object?.count ?? 0))" }
        let all =
            sizes.count > 1 ? sizes.dropLast().joined(separator: ", ") + " and " + (sizes.last ?? "") : sizes.joined()
        let areColumns = !lists.contains { $0.value.array == nil || Self.areRecords($0.value) }
        return PEFTError(
            "\(name) has the lists \(all)",
            remedy: "choose one, such as \(name):\(lists.first?.name ?? "")"
                + (areColumns ? ", or make the columns equally long" : ""))
    }

    private static func areRecords(_ value: JSON) -> Bool {
        value.array?.allSatisfy { $0.object != nil } ?? false
    }

    private static func areMessages(_ value: JSON) -> Bool {
        guard let list = value.array, !list.isEmpty else { return false }
        return list.allSatisfy { $0["role"]?.string != nil } && list.contains { $0["content"] != nil }
            || list.allSatisfy { $0["from"]?.string != nil && $0["value"] != nil }
    }

    // MARK: Data frames

    /// The rows of an object that holds a data frame, in one of pandas' orientations; `nil` for another object.
    private func frame(_ members: [Member], _ name: String) throws -> [Row]? {
        // orient="split"
        if let names = members.first(where: { $0.name == "columns" })?.value.array?.compactMap(\.string),
            let data = members.first(where: { $0.name == "data" }), let rows = data.value.array, !rows.isEmpty,
            rows.allSatisfy({ $0.array?.count == names.count })
        {
            return rows.prefix(limit).enumerated().map { index, cells in
                row(Array(zip(names, cells.array ?? [])), index, name)
            }
        }
        // orient="list"
        let columns = members.compactMap { member in member.value.array.map { (member, $0) } }
        if let count = columns.first?.1.count, count > 0, columns.count == members.count,
            columns.allSatisfy({ $0.1.count == count }), !columns.allSatisfy({ Self.areRecords($0.0.value) })
        {
            return try transposed(columns.map(\.0), count, name)
        }
        // orient="columns" and "index"
        let objects = members.compactMap { member in member.value.object.map { (member.name, $0) } }
        guard let keys = objects.first?.1.keys, objects.count == members.count, !keys.isEmpty else { return nil }
        if let order = Self.numbered(Array(keys)), objects.allSatisfy({ $0.1.keys == keys }) {
            return order.prefix(limit).enumerated().map { index, key in
                row(objects.map { ($0.0, $0.1[key] ?? .null) }, index, name)
            }
        }
        guard let order = Self.numbered(objects.map(\.0)) else { return nil }
        let named = Dictionary(objects, uniquingKeysWith: { _, last in last })
        return order.prefix(limit).enumerated().map { index, key in
            row((named[key] ?? [:]).map { ($0, $1) }, index, name)
        }
    }

    private func transposed(_ columns: [Member], _ count: Int, _ name: String) throws -> [Row] {
        // The text of each value, column by column.
        var texts: [[ArraySlice<UInt8>]] = []
        if keepsText {
            for column in columns {
                var own: [ArraySlice<UInt8>] = []
                try JSONParser.elements(of: column.text) { _, text in
                    own.append(text)
                    return own.count < limit
                }
                texts.append(own)
            }
        }
        return (0..<min(count, limit)).map { index in
            var row = row(columns.map { ($0.name, $0.value.array?[index] ?? .null) }, index, name)
            if keepsText {
                let parts = zip(columns, texts).map { column, own -> String in
                    var name = ""
                    JSON.quote(column.name, into: &name)
                    return "\(name): \(String(decoding: own[index], as: UTF8.self))"
                }
                row.text = "{\(parts.joined(separator: ", "))}"
            }
            return row
        }
    }

    private func row(_ fields: [(String, JSON)], _ index: Int, _ name: String) -> Row {
        Row(
            Dictionary(fields, uniquingKeysWith: { _, last in last }),
            location: .init(file: name, number: index + 1, unit: .row))
    }

    /// Keys in the order of their numbers; `nil` unless all are numbers.
    private static func numbered(_ keys: [String]) -> [String]? {
        let numbers = keys.compactMap { key in Int(key).map { (key, $0) } }
        return numbers.count == keys.count ? numbers.sorted { $0.1 < $1.1 }.map(\.0) : nil
    }
}

extension JSON {
    var isContainer: Bool { array != nil || object != nil }
}
