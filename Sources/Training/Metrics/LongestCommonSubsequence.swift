/// Longest common subsequences of token ids by dynamic programming, O(n·m) time.
enum LongestCommonSubsequence {
    /// Its length, in O(min(n, m)) memory.
    static func length(_ a: [Int32], _ b: [Int32]) -> Int {
        let (long, short) = a.count < b.count ? (b, a) : (a, b)
        guard !short.isEmpty else { return 0 }
        var row = [Int32](repeating: 0, count: short.count + 1)
        row.withUnsafeMutableBufferPointer { row in
            short.withUnsafeBufferPointer { short in
                for x in long {
                    var diagonal: Int32 = 0
                    for j in 0..<short.count {
                        let above = row[j + 1]
                        row[j + 1] = x == short[j] ? diagonal + 1 : max(above, row[j])
                        diagonal = above
                    }
                }
            }
        }
        return Int(row[short.count])
    }

    /// Marks the positions of `reference` that lie on one longest common subsequence with `candidate`.
    ///
    /// If there are several, the one that the Python package `rouge_score` finds: from the ends, equal
    /// tokens match; otherwise go left in the candidate only if that keeps more than going up in the
    /// reference.
    static func mark(_ marks: inout [Bool], of reference: [Int32], with candidate: [Int32]) {
        let (rows, columns) = (reference.count, candidate.count)
        guard rows > 0, columns > 0 else { return }
        // Only the comparisons needed for backtracking are stored.
        var goesLeft = [Bool](repeating: false, count: rows * columns)
        var row = [Int32](repeating: 0, count: columns + 1)
        goesLeft.withUnsafeMutableBufferPointer { goesLeft in
            row.withUnsafeMutableBufferPointer { row in
                for i in 0..<rows {
                    var diagonal: Int32 = 0
                    for j in 0..<columns {
                        let above = row[j + 1]
                        goesLeft[i * columns + j] = row[j] > above
                        row[j + 1] = reference[i] == candidate[j] ? diagonal + 1 : max(above, row[j])
                        diagonal = above
                    }
                }
            }
        }
        var (i, j) = (rows - 1, columns - 1)
        while i >= 0, j >= 0 {
            if reference[i] == candidate[j] {
                marks[i] = true
                (i, j) = (i - 1, j - 1)
            } else if goesLeft[i * columns + j] {
                j -= 1
            } else {
                i -= 1
            }
        }
    }
}
