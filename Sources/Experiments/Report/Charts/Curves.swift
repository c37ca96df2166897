/// Curves prepared for drawing: strands averaged, long ones thinned.
enum Curves {
    typealias Points = [(x: Double, y: Double)]

    /// Mean over the curves at the x that every curve has a finite y for.
    static func mean(_ curves: [Points]) -> Points {
        var sums: [Double: (sum: Double, count: Int)] = [:]
        let used = curves.filter { curve in curve.contains { $0.y.isFinite } }
        for curve in used {
            for point in curve where point.y.isFinite {
                let known = sums[point.x] ?? (0, 0)
                sums[point.x] = (known.sum + point.y, known.count + 1)
            }
        }
        return sums.keys.sorted().compactMap { x in
            guard let entry = sums[x], entry.count >= used.count else { return nil }
            return (x, entry.sum / Double(entry.count))
        }
    }

    /// At most `count` points, each the mean of its neighbors' finite values; the last one stays last.
    static func thinned(_ points: Points, to count: Int) -> Points {
        guard points.count > count, count > 0 else { return points }
        return (0..<count).map { bucket in
            let slice = points[bucket * points.count / count..<(bucket + 1) * points.count / count]
            let finite = slice.filter(\.y.isFinite)
            guard let last = slice.last, !finite.isEmpty else { return (slice.last?.x ?? 0, .nan) }
            // A bucket that runs into a divergence ends there.
            if !last.y.isFinite { return (last.x, .nan) }
            let x = bucket == 0 ? slice[slice.startIndex].x : bucket == count - 1 ? last.x : mean(finite.map(\.x))
            return (x, mean(finite.map(\.y)))
        }
    }

    private static func mean(_ values: [Double]) -> Double { values.reduce(0, +) / Double(max(values.count, 1)) }
}
