@testable import Training

/// Length match: the shorter of the total lengths of outputs and first references, divided by the longer; in 0 … 1.
package enum LengthMatch {
    static let description = MetricDescription(
        key: "lengthMatch", name: "Length match",
        explanation: "How close the total length of the outputs is to that of the targets, in percent."
    ) { texts, bootstrap in
        let lengths = zip(texts.predictions, texts.references).map { (output: $0.count, target: $1[0].count) }
        // Recomputed on each bootstrap resample, as it is a ratio of sums and not a mean over examples.
        return try bootstrap.value(rows: lengths.count) { rows in
            let output = rows.reduce(0) { $0 + lengths[$1].output }
            let target = rows.reduce(0) { $0 + lengths[$1].target }
            return Double(min(output, target)) / Double(max(1, output, target))
        }
    }
}
