import Foundation

/// How numbers are written for a reader: on a page with narrow spaces and true minus signs, in a terminal
/// with plain commas.
struct NumberFormat: Sendable {
    /// Between groups of three digits.
    var grouping: String
    /// Between a number and its unit.
    var space: String
    var minus: String

    /// U+202F (narrow no-break space) and U+2212 (minus sign).
    static let page = NumberFormat(grouping: "\u{202F}", space: "\u{202F}", minus: "\u{2212}")
    static let terminal = NumberFormat(grouping: ",", space: " ", minus: "-")

    /// What stands where a value is missing.
    static let missing = "–"

    func integer(_ value: Int) -> String {
        let digits = Array(String(value.magnitude))
        var out = ""
        for (index, digit) in digits.enumerated() {
            if index > 0, (digits.count - index).isMultiple(of: 3) { out += grouping }
            out.append(digit)
        }
        return (value < 0 ? minus : "") + out
    }

    /// Fixed decimals with grouping; a value that is not finite is a dash.
    func decimal(_ value: Double, places: Int) -> String {
        guard value.isFinite else { return Self.missing }
        let text = String(format: "%.\(max(places, 0))f", abs(value))
        let parts = text.split(separator: ".", maxSplits: 1)
        let whole = parts.first.map(String.init) ?? "0"
        let isZero = !text.contains { $0 != "0" && $0 != "." }
        var out = value < 0 && !isZero ? minus : ""
        // Beyond Int, grouping no longer helps anyone.
        out += Int(whole).map(integer) ?? whole
        if parts.count > 1 { out += "." + parts[1] }
        return out
    }

    /// About three significant digits: `1.42`, `14.2`, `142`, `1,420`.
    func significant(_ value: Double) -> String {
        let size = abs(value)
        let places = size < 0.0995 ? (size == 0 ? 0 : 3) : size < 9.995 ? 2 : size < 99.95 ? 1 : 0
        return decimal(value, places: places)
    }

    /// A value in 0 … 1 as percent points with one decimal.
    func points(_ value: Double) -> String { decimal(value * 100, places: 1) }

    func signed(_ value: Double, places: Int) -> String {
        let text = decimal(value, places: places)
        return value > 0 && text.contains { $0 != "0" && $0 != "." } ? "+" + text : text
    }

    /// A share in 0 … 1 as percent, with enough digits that a small one is not shown as zero.
    func percent(_ share: Double) -> String {
        guard share.isFinite else { return Self.missing }
        let value = share * 100
        let places = value == 0 || value >= 99.95 ? 0 : value < 0.0995 ? 3 : value < 9.995 ? 2 : 1
        if value > 0, value < 0.0005 { return "<0.001" + space + "%" }
        return decimal(value, places: places) + space + "%"
    }

    /// Bytes in decimal units (1 MB = 10⁶ bytes).
    func bytes(_ count: Int) -> String { bytes(Double(count)) }

    func bytes(_ count: Double) -> String {
        var value = count
        var unit = "B"
        for next in ["kB", "MB", "GB", "TB"] where abs(value) >= 999.5 {
            value /= 1000
            unit = next
        }
        return (unit == "B" ? decimal(value, places: 0) : significant(value)) + space + unit
    }

    /// A count in short form for axes: `10 K`, `3.5 M`.
    func short(_ count: Double) -> String {
        guard count.isFinite else { return Self.missing }
        var value = count
        var unit = ""
        for next in ["K", "M", "B", "T"] where abs(value) >= 999.5 {
            value /= 1000
            unit = next
        }
        let isWhole = abs(value - value.rounded()) < 0.05
        return decimal(value, places: isWhole ? 0 : 1) + (unit.isEmpty ? "" : space + unit)
    }

    /// A learning rate the way configurations write it: `2e-4`, `0.3`.
    func rate(_ value: Double) -> String {
        guard value.isFinite, value > 0 else { return value == 0 ? "0" : Self.missing }
        if value >= 0.0995, value < 1e5 { return trimmed(String(format: "%.2f", value)) }
        var exponent = Int(log10(value).rounded(.down))
        var mantissa = value / pow(10, Double(exponent))
        if mantissa >= 9.995 { (mantissa, exponent) = (1, exponent + 1) }
        return "\(trimmed(String(format: "%.2f", mantissa)))e\(exponent)"
    }

    private func trimmed(_ decimals: String) -> String {
        var out = decimals
        while out.hasSuffix("0") { out.removeLast() }
        if out.hasSuffix(".") { out.removeLast() }
        return out
    }

    func duration(seconds: Double) -> String {
        guard seconds.isFinite, seconds >= 0, seconds < 1e12 else { return Self.missing }
        if seconds < 99.5 { return significant(seconds) + space + "s" }
        let whole = Int(seconds.rounded())
        if whole < 3600 { return "\(whole / 60)\(space)min \(whole % 60)\(space)s" }
        return "\(integer(whole / 3600))\(space)h \(whole % 3600 / 60)\(space)min"
    }

    /// A ratio for prose: `1.8`, `72`.
    func factor(_ value: Double) -> String { decimal(value, places: value < 9.95 ? 1 : 0) }
}
