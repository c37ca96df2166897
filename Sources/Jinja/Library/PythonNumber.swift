import Foundation

/// Python's parsing and rounding of numbers.
enum PythonNumber {
    /// The text without surrounding whitespace and underscores between digits; `nil` for misplaced underscores.
    static func digits(_ text: String) -> String? {
        let text = text.stripped()
        guard text.contains("_") else { return text }
        let bytes = Array(text.utf8)
        for (index, byte) in bytes.enumerated() where byte == UInt8(ascii: "_") {
            guard index > 0, index + 1 < bytes.count, 0x30...0x39 ~= bytes[index - 1], 0x30...0x39 ~= bytes[index + 1]
            else { return nil }
        }
        return text.filter { $0 != "_" }
    }

    /// Parses as `float()` does.
    static func float(_ text: String) -> Double? {
        // Swift also accepts hexadecimal numbers and spellings of NaN that Python rejects.
        let lower = text.lowercased()
        let bare = lower.hasPrefix("+") || lower.hasPrefix("-") ? String(lower.dropFirst()) : lower
        if ["inf", "infinity"].contains(bare) { return lower.hasPrefix("-") ? -.infinity : .infinity }
        if bare == "nan" { return .nan }
        guard bare.utf8.allSatisfy({ 0x30...0x39 ~= $0 || ".e+-".utf8.contains($0) }) else { return nil }
        return Double(bare.hasPrefix(".") ? "0" + bare : bare.hasSuffix(".") ? bare + "0" : bare)
            .map { lower.hasPrefix("-") ? -$0 : $0 }
    }

    /// `round()`: the exact decimal expansion of the binary number, ties to even.
    static func rounded(_ number: Double, places: Int) -> Double {
        guard number.isFinite else { return number }
        guard places >= 0 else {
            let scale = power(of: -places)
            return (number / scale).rounded(.toNearestOrEven) * scale
        }
        return Double(String(format: "%.*f", places, number)) ?? number
    }

    static func power(of exponent: Int) -> Double { pow(10, Double(exponent)) }
}
