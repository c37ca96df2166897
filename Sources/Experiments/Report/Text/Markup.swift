import Foundation

/// HTML or SVG text that is safe by construction: literals are markup, interpolated strings are escaped.
///
///     let cell: Markup = "<td>\(label)</td>"      // label may hold anything
///
/// The result is also well-formed XML, so tests can parse it.
package struct Markup: ExpressibleByStringInterpolation, Sendable {
    package private(set) var text: String

    package init(stringLiteral value: String) { text = value }
    package init(stringInterpolation: StringInterpolation) { text = stringInterpolation.text }
    /// Style sheets and scripts, which must not be escaped. Never text that came from outside.
    package init(trusted text: String) { self.text = text }

    package static let empty: Markup = ""

    package static func + (a: Markup, b: Markup) -> Markup { Markup(trusted: a.text + b.text) }
    package static func += (a: inout Markup, b: Markup) { a.text += b.text }

    package struct StringInterpolation: StringInterpolationProtocol {
        fileprivate var text = ""

        package init(literalCapacity: Int, interpolationCount: Int) {
            text.reserveCapacity(literalCapacity + 16 * interpolationCount)
        }

        package mutating func appendLiteral(_ literal: String) { text += literal }
        package mutating func appendInterpolation(_ value: String) { Markup.escape(value, into: &text) }
        package mutating func appendInterpolation(_ value: Markup) { text += value.text }
        package mutating func appendInterpolation(_ values: [Markup]) { for value in values { text += value.text } }
        package mutating func appendInterpolation(_ value: Int) { text += String(value) }
        /// A coordinate: two decimals at most, and never anything but a number.
        package mutating func appendInterpolation(_ value: Double) {
            guard value.isFinite, abs(value) < 1e9 else { text += "0"; return }
            let hundredths = Int((value * 100).rounded())
            let (whole, rest) = hundredths.magnitude.quotientAndRemainder(dividingBy: 100)
            if hundredths < 0 { text += "-" }
            text += String(whole)
            guard rest > 0 else { return }
            text += rest < 10 ? ".0\(rest)" : rest % 10 == 0 ? ".\(rest / 10)" : ".\(rest)"
        }
    }

    private static func escape(_ value: String, into out: inout String) {
        var previous: Unicode.Scalar?
        for scalar in value.unicodeScalars {
            defer { previous = scalar }
            switch scalar {
            case "&": out += "&amp;"
            case "<": out += "&lt;"
            case ">": out += "&gt;"
            case "\"": out += "&quot;"
            case "'": out += "&#39;"
            case "\n" where previous == "\r": break
            case "\t", "\n": out.unicodeScalars.append(scalar)
            case "\r": out += "\n"
            // Overrides of direction would turn around whatever follows on the page.
            case "\u{202D}", "\u{202E}": out += "\u{FFFD}"
            // Not allowed in XML, and invisible in HTML: show that something was there.
            case _
            where scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
                || scalar.value & 0xFFFE == 0xFFFE:
                out += "\u{FFFD}"
            default: out.unicodeScalars.append(scalar)
            }
        }
    }
}

extension [Markup] {
    package func joined(_ separator: Markup = "") -> Markup {
        Markup(trusted: map(\.text).joined(separator: separator.text))
    }
}
