import Support

/// How much of a data set is kept from training.
public enum HeldOut: Sendable, Hashable {
    /// So many rows.
    case count(Int)
    /// This share of the rows, in 0 … 1, rounded to whole rows but at least one (and at most all but one).
    case fraction(Double)
}

/// Splits rows into those to train on and those held out, by seed.
///
/// Both parts keep the order of `rows`. The same seed with a smaller held-out part gives a subset of it.
/// - Throws: ``PEFTError`` unless both parts get at least one row.
public func split<Element>(
    _ rows: [Element], heldOut: HeldOut, seed: UInt64
) throws -> (training: [Element], heldOut: [Element]) {
    let count: Int
    switch heldOut {
    case .count(let wanted):
        guard wanted > 0, wanted < rows.count else {
            throw PEFTError(
                "can't hold out \(wanted) of \(counted(rows.count, "row"))",
                remedy: rows.count > 1 ? "give 1 to \(rows.count - 1)" : "a split needs at least 2 rows")
        }
        count = wanted
    case .fraction(let share):
        guard share > 0, share < 1 else {
            throw PEFTError("can't hold out a share of \(share)", remedy: "give a number between 0 and 1")
        }
        guard rows.count > 1 else {
            throw PEFTError("can't split \(counted(rows.count, "row"))", remedy: "a split needs at least 2 rows")
        }
        count = min(max(Int((Double(rows.count) * share).rounded()), 1), rows.count - 1)
    }
    var isHeldOut = [Bool](repeating: false, count: rows.count)
    for index in SeededRandom.permutation(count: rows.count, seed: seed).prefix(count) { isHeldOut[index] = true }
    return (
        zip(rows, isHeldOut).filter { !$1 }.map(\.0),
        zip(rows, isHeldOut).filter { $1 }.map(\.0)
    )
}
