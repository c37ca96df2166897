import PEFTSupport

/// The size of the held-out part of a dataset.
package enum HeldOut: Sendable, Hashable {
    /// This number of rows.
    case count(Int)
    /// This fraction of the rows, between 0 and 1, rounded to at least one and at most all but one row.
    case fraction(Double)
}

/// Splits rows at random into a training and a held-out part.
///
/// Both parts keep the order of `rows`. The same seed with a smaller held-out part gives a subset of it.
/// - Parameter classes: the class of each row, for a stratified split: each class is represented proportionally in both
///   parts, with at least one training row.
/// - Throws: ``PEFTError`` unless both parts get at least one row.
package func split<Element>(
    _ rows: [Element], heldOut: HeldOut, seed: UInt64, classes: [String]? = nil
) throws -> (training: [Element], heldOut: [Element]) {
    let isHeldOut = try heldOutRows(of: rows.count, heldOut, seed: seed, classes: classes)
    return (
        zip(rows, isHeldOut).filter { !$1 }.map(\.0),
        zip(rows, isHeldOut).filter { $1 }.map(\.0)
    )
}

/// A fraction of the training data that is held out for validation; a function of the seed.
public struct ValidationSplit: Sendable {
    /// Between 0 and 1.
    package let share: Double
    /// Seed of the selection.
    package let seed: UInt64

    /// - Parameters:
    ///   - share: fraction of the rows that is held out, above 0 and below 1.
    ///   - seed: seed of the selection.
    public init(share: Double, seed: UInt64 = 0) { (self.share, self.seed) = (share, seed) }

    /// - Parameter classes: the class of each row, for a stratified split.
    /// - Throws: ``PEFTError`` as ``split(_:heldOut:seed:classes:)`` does.
    package func callAsFunction<Element>(_ rows: [Element], classes: [String]? = nil) throws -> (
        training: [Element], heldOut: [Element]
    ) {
        try split(rows, heldOut: .fraction(share), seed: seed, classes: classes)
    }
}

/// Whether each of `rows` rows is held out.
private func heldOutRows(of rows: Int, _ heldOut: HeldOut, seed: UInt64, classes: [String]?) throws -> [Bool] {
    let count: Int
    switch heldOut {
    case .count(let wanted):
        guard wanted > 0, wanted < rows else {
            throw PEFTError(
                "can't hold out \(wanted) of \(counted(rows, "row"))",
                remedy: rows > 1 ? "hold out 1 to \(rows - 1)" : "a split needs at least 2 rows")
        }
        count = wanted
    case .fraction(let share):
        guard share > 0, share < 1 else {
            throw PEFTError("the fraction to hold out must be between 0 and 1 (got \(share))")
        }
        guard rows > 1 else {
            throw PEFTError("can't split \(counted(rows, "row"))", remedy: "a split needs at least 2 rows")
        }
        count = min(max(Int((Double(rows) * share).rounded()), 1), rows - 1)
    }
    var isHeldOut = [Bool](repeating: false, count: rows)
    var left = classes.map { quotas($0, heldOut: count) }
    let order = SeededRandom.permutation(count: rows, seed: seed)
    guard let classes, left?.values.contains(where: { $0 > 0 }) ?? false else {
        for index in order.prefix(count) { isHeldOut[index] = true }
        return isHeldOut
    }
    for index in order where left?[classes[index]] ?? 0 > 0 {
        isHeldOut[index] = true
        left?[classes[index]]? -= 1
    }
    return isHeldOut
}

/// Held-out rows of each class: its proportion, rounded so that the sum is `heldOut` (largest-remainder
/// method), but never all rows of a class.
private func quotas(_ classes: [String], heldOut: Int) -> [String: Int] {
    let sizes = Dictionary(classes.map { ($0, 1) }, uniquingKeysWith: +)
    let shares = sizes.mapValues { Double($0 * heldOut) / Double(classes.count) }
    var quotas = shares.mapValues { Int($0) }
    var missing = heldOut - quotas.values.reduce(0, +)
    let names = sizes.keys.sorted {
        let remainders = [$0, $1].map { (shares[$0] ?? 0).truncatingRemainder(dividingBy: 1) }
        return remainders[0] == remainders[1] ? $0 < $1 : remainders[0] > remainders[1]
    }
    for name in names where missing > 0 && quotas[name, default: 0] + 1 < sizes[name, default: 0] {
        quotas[name, default: 0] += 1
        missing -= 1
    }
    // Distribute what classes with a single row could not take.
    for name in names.sorted(by: { (sizes[$0] ?? 0, $1) > (sizes[$1] ?? 0, $0) }) where missing > 0 {
        let room = min(missing, sizes[name, default: 0] - 1 - quotas[name, default: 0])
        quotas[name, default: 0] += room
        missing -= room
    }
    return quotas
}
