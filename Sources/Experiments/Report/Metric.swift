import Training

/// A column of quality: a key of ``MethodRun/quality``, or the loss. Its name, scale and so on are those of its
/// ``MetricDescription``.
@dynamicMemberLookup
struct Metric: Hashable, Sendable {
    let key: String

    static let loss = Metric(key: Perplexity.lossKey)

    subscript<Value>(dynamicMember fact: KeyPath<MetricDescription, Value>) -> Value {
        MetricDescription.of(key)[keyPath: fact]
    }

    func format(_ value: Double, with numbers: NumberFormat) -> String {
        numbers.decimal(value * self.scale, places: self.places)
    }

    /// A difference with its sign, and its interval in brackets.
    func format(_ difference: Difference, with numbers: NumberFormat) -> (value: String, interval: String) {
        func text(_ value: Double) -> String { numbers.signed(value * self.scale, places: self.places) }
        return (text(difference.value), "[\(text(difference.low)), \(text(difference.high))]")
    }

    /// The value as it is shown, so that differences of shown values add up for the reader.
    func rounded(_ value: Double) -> Double {
        let unit = (0..<self.places).reduce(1.0) { power, _ in power * 10 }
        return (value * self.scale * unit).rounded() / unit
    }

    /// How much better `a` is than `b`, in displayed units; negative if it is worse.
    func gain(of a: Statistic, over b: Statistic) -> Double {
        let difference = rounded(a.mean) - rounded(b.mean)
        return self.higherIsBetter ? difference : -difference
    }

    func isBetter(_ a: Double, than b: Double) -> Bool { self.higherIsBetter ? a > b : a < b }
}
