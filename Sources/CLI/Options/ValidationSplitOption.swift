import ArgumentParser
import Support
import Training

/// Validation examples that are taken from the training data.
struct ValidationSplitOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Share of the training examples to hold out for validation by --seed, such as 0.1, instead of --validation.",
            valueName: "share"))
    var validationSplit: Double?

    /// What is held out; `nil` for nothing.
    /// - Parameter validation: what `--validation` names.
    func heldOut(validation: String?, seed: UInt64) throws -> ValidationSplit? {
        guard let validationSplit else { return nil }
        guard validation == nil else {
            throw UsageError("--validation and --validation-split were both given", remedy: "give one of them")
        }
        guard validationSplit > 0, validationSplit < 1 else {
            throw UsageError(
                "--validation-split is \(validationSplit)", remedy: "give a share between 0 and 1, such as 0.1")
        }
        return ValidationSplit(share: validationSplit, seed: seed)
    }
}

/// A part of the training data that is held out for validation; the same for the same seed.
struct ValidationSplit {
    let share: Double
    let seed: UInt64

    /// - Parameter classes: the class of each row, of which both parts get the same shares.
    func callAsFunction<Element>(_ rows: [Element], classes: [String]? = nil) throws -> (
        training: [Element], heldOut: [Element]
    ) {
        try split(rows, heldOut: .fraction(share), seed: seed, classes: classes)
    }
}
