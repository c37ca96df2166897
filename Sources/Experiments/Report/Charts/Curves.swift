/// Loss curves prepared for drawing: seeds averaged, long ones thinned.
enum Curves {
    typealias Points = [(x: Double, y: Double)]

    /// Mean over the seeds at the steps that every seed has a finite loss for.
    static func mean(_ curves: [[MethodRun.Point]]) -> Points {
        var sums: [Int: (sum: Double, count: Int)] = [:]
        let used = curves.filter { curve in curve.contains { $0.loss.isFinite } }
        for curve in used {
            for point in curve where point.loss.isFinite {
                let known = sums[point.step] ?? (0, 0)
                sums[point.step] = (known.sum + point.loss, known.count + 1)
            }
        }
        return sums.keys.sorted().compactMap { step in
            guard let entry = sums[step], entry.count >= used.count else { return nil }
            return (Double(step), entry.sum / Double(entry.count))
        }
    }

    static func points(_ curve: [MethodRun.Point]) -> Points {
        curve.sorted { $0.step < $1.step }.map { (Double($0.step), $0.loss) }
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
