import Foundation

/// Maps values to pixels along one axis, with ticks at numbers people count in.
struct Scale: Sendable {
    enum Kind { case linear, logarithmic }

    let kind: Kind
    let domain: ClosedRange<Double>
    let ticks: [Double]
    /// Pixels of the domain's ends; an axis that points up has `start` greater than `end`.
    let start: Double
    let end: Double

    func callAsFunction(_ value: Double) -> Double {
        let (low, high) = (position(domain.lowerBound), position(domain.upperBound))
        guard value.isFinite, high > low else { return (start + end) / 2 }
        return start + (position(value) - low) / (high - low) * (end - start)
    }

    private func position(_ value: Double) -> Double { kind == .linear ? value : log10(max(value, 1e-300)) }

    /// A scale whose ends are ticks: steps of 1, 2 or 5 times a power of ten.
    static func linear(
        _ values: [Double], fromZero: Bool = false, ticks count: Int = 5, start: Double, end: Double
    ) -> Scale {
        let finite = values.filter(\.isFinite)
        var low = finite.min() ?? 0
        var high = finite.max() ?? 1
        if fromZero { (low, high) = (min(low, 0), max(high, 0)) }
        if high - low <= abs(high) * 1e-9 {
            // One value only: give it room on both sides.
            let room = high == 0 ? 1 : max(abs(high) * 0.1, 1e-6)
            (low, high) = (fromZero && low >= 0 ? 0 : low - room, high + room)
        }
        let step = niceStep((high - low) / Double(max(count - 1, 1)))
        let first = (low / step + 1e-9).rounded(.down)
        let last = (high / step - 1e-9).rounded(.up)
        let ticks = stride(from: first, through: last, by: 1).prefix(40).map { $0 * step }
        return Scale(kind: .linear, domain: (first * step)...(last * step), ticks: ticks, start: start, end: end)
    }

    /// A logarithmic scale over positive values; ticks at powers of ten, or also at 2 and 5 times these where
    /// few powers are in sight.
    static func logarithmic(
        _ values: [Double], ticks wanted: [Double]? = nil, room: Double = 0.08, start: Double, end: Double
    ) -> Scale {
        let positive = values.filter { $0.isFinite && $0 > 0 }
        var low = log10(positive.min() ?? 1)
        var high = log10(positive.max() ?? 10)
        if high - low < 0.5 { (low, high) = (low - 0.5, high + 0.5) }
        let margin = (high - low) * room
        (low, high) = (low - margin, high + margin)
        let powers = stride(from: low.rounded(.down), through: high.rounded(.up), by: 1).prefix(40)
        var ticks = powers.map { pow(10, $0) }
        var inside = ticks.filter { (low...high).contains(log10($0)) }
        if inside.count < 3 {
            ticks = ticks.flatMap { [$0, 2 * $0, 5 * $0] }
            inside = ticks.filter { (low...high).contains(log10($0)) }
        }
        return Scale(
            kind: .logarithmic, domain: pow(10, low)...pow(10, high), ticks: wanted ?? inside, start: start, end: end)
    }

    /// A linear scale that ends with the data; ticks lie inside. `room` is a share of the data's width.
    static func tight(_ values: [Double], room: Double = 0, ticks count: Int = 5, start: Double, end: Double) -> Scale
    {
        let nice = linear(values, ticks: count, start: start, end: end)
        let finite = values.filter(\.isFinite)
        guard let low = finite.min(), let high = finite.max(), high > low else { return nice }
        let margin = (high - low) * room
        let domain = (low - margin)...(high + margin)
        return Scale(
            kind: .linear, domain: domain, ticks: nice.ticks.filter(domain.contains), start: start, end: end)
    }

    static func niceStep(_ rough: Double) -> Double {
        guard rough.isFinite, rough > 0 else { return 1 }
        let power = pow(10, log10(rough).rounded(.down))
        let fraction = rough / power
        let nice = fraction <= 1.0001 ? 1.0 : fraction <= 2.0001 ? 2 : fraction <= 5.0001 ? 5 : 10
        return nice * power
    }

    /// Decimals that tell neighboring ticks apart.
    var tickPlaces: Int {
        guard ticks.count > 1 else { return 1 }
        let step = ticks[1] - ticks[0]
        return step > 0 ? max(0, Int((-log10(step) - 1e-9).rounded(.up))) : 0
    }
}
