/// Whether a file of fields separated by tabs is quoted as CSV is.
///
/// In `.tsv` files a double quote usually is a character as any other (GLUE's have many). A file is read as quoted only where
/// it is well-formed so throughout: each field that begins with a quote ends with one, the quotes inside are doubled, and no
/// other field has any. And something must ask for it: all names of the header are quoted, a quote is doubled, or without
/// quoting some line has another number of fields than the header.
enum TSVQuoting {
    private static let (quote, tab, lineFeed, carriageReturn) = (UInt8(0x22), UInt8(0x09), UInt8(0x0A), UInt8(0x0D))

    static func isQuoted(_ bytes: [UInt8]) -> Bool {
        var (isHeader, isHeaderQuoted, isDoubled, hasQuotes) = (true, true, false, false)
        var index = 0
        while index < bytes.count {
            if bytes[index] == quote {
                hasQuotes = true
                guard let (end, isOwnDoubled) = closing(bytes, from: index + 1) else { return false }
                isDoubled = isDoubled || isOwnDoubled
                index = end + 1
                if index < bytes.count, bytes[index] == carriageReturn { index += 1 }
                guard index == bytes.count || bytes[index] == tab || bytes[index] == lineFeed else { return false }
            } else {
                if isHeader { isHeaderQuoted = false }
                while index < bytes.count, bytes[index] != tab, bytes[index] != lineFeed {
                    if bytes[index] == quote { return false }
                    index += 1
                }
            }
            if index < bytes.count, bytes[index] == lineFeed { isHeader = false }
            index += 1
        }
        return hasQuotes && (isHeaderQuoted || isDoubled || !isRegular(bytes))
    }

    /// The quote that ends a field, and whether one inside is doubled.
    private static func closing(_ bytes: [UInt8], from start: Int) -> (end: Int, isDoubled: Bool)? {
        var (index, isDoubled) = (start, false)
        while index < bytes.count {
            if bytes[index] == quote {
                guard index + 1 < bytes.count, bytes[index + 1] == quote else { return (index, isDoubled) }
                isDoubled = true
                index += 1
            }
            index += 1
        }
        return nil
    }

    /// Whether all lines have as many fields as the first, if a quote is a character.
    private static func isRegular(_ bytes: [UInt8]) -> Bool {
        let lines = bytes.split(separator: lineFeed).filter { !$0.isBlank }
        let counts = lines.map { line in line.count { $0 == tab } }
        return counts.allSatisfy { $0 == counts.first }
    }
}
