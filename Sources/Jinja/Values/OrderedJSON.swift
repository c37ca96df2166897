import PEFTSupport

extension JinjaValue {
    /// Reads JSON text; the keys of objects keep their order, which a template that writes tools down shows.
    /// - Throws: ``PEFTError`` naming `name` where the text is not JSON.
    package init(json text: String, name: String) throws {
        let bytes = Array(text.utf8)
        do {
            // The parser checks; the scanner then reads in order.
            _ = try JSONParser.parse(bytes[...])
            var scanner = JSONScanner(bytes)
            self = try Self.read(&scanner, bytes)
        } catch let error as JSONParser.Failure {
            throw PEFTError("\(name) is not valid JSON: \(error.message) at byte \(error.offset)")
        }
    }

    private static func read(_ scanner: inout JSONScanner, _ bytes: [UInt8]) throws -> JinjaValue {
        switch scanner.peek {
        case UInt8(ascii: "{"):
            var dictionary = JinjaDictionary()
            try scanner.members { scanner in
                let key = String(decoding: scanner.text, as: UTF8.self)
                dictionary[key] = try read(&scanner, bytes)
            }
            return .dictionary(dictionary)
        case UInt8(ascii: "["):
            var values: [JinjaValue] = []
            try scanner.elements { values.append(try read(&$0, bytes)) }
            return .list(values)
        case UInt8(ascii: "\""):
            try scanner.string()
            return .string(String(decoding: scanner.text, as: UTF8.self))
        default:
            let start = scanner.index
            try scanner.skipValue()
            return JinjaValue(try JSONParser.parse(bytes[start..<scanner.index]))
        }
    }
}
