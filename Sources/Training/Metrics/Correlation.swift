/// Correlation coefficients of two lists of numbers, in −1 … 1.
enum Correlation {
    static let pearsonExplanation = "Pearson correlation of predicted and true values, times 100."
    static let spearmanExplanation =
        "Spearman rank correlation of predicted and true values, times 100: only the order counts."

    /// Pearson's r; 0 where one list is constant.
    static func pearson(_ a: [Double], _ b: [Double]) -> Double {
        let count = Double(a.count)
        guard count > 0 else { return 0 }
        let (meanA, meanB) = (a.reduce(0, +) / count, b.reduce(0, +) / count)
        var (product, squaresA, squaresB) = (0.0, 0.0, 0.0)
        for (x, y) in zip(a, b) {
            product += (x - meanA) * (y - meanB)
            squaresA += (x - meanA) * (x - meanA)
            squaresB += (y - meanB) * (y - meanB)
        }
        let scale = squaresA.squareRoot() * squaresB.squareRoot()
        return scale > 0 ? product / scale : 0
    }

    /// Spearman's ρ: Pearson's r of the ranks, with the mean rank for ties.
    static func spearman(_ a: [Double], _ b: [Double]) -> Double { pearson(ranks(a), ranks(b)) }

    static func ranks(_ values: [Double]) -> [Double] {
        let order = values.indices.sorted { values[$0] < values[$1] }
        var ranks = [Double](repeating: 0, count: values.count)
        var start = 0
        while start < order.count {
            var end = start
            while end + 1 < order.count, values[order[end + 1]] == values[order[start]] { end += 1 }
            for place in start...end { ranks[order[place]] = Double(start + end) / 2 + 1 }
            start = end + 1
        }
        return ranks
    }
}
