import ArgumentParser
import Training

/// Holds out part of the training data for validation.
struct ValidationSplitOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Fraction of the training data to hold out for validation, such as 0.1, in place of --validation; drawn with --seed.",
            valueName: "fraction"))
    var validationSplit: Double?

    /// The split; `nil` if nothing is held out.
    /// - Parameter validation: the value of `--validation`.
    func heldOut(validation: String?, seed: UInt64) throws -> ValidationSplit? {
        guard let validationSplit else { return nil }
        guard validation == nil else {
            throw UsageError("--validation and --validation-split are mutually exclusive", remedy: "use one of them")
        }
        guard validationSplit > 0, validationSplit < 1 else {
            throw UsageError(
                "invalid --validation-split \(validationSplit)", remedy: "use a fraction between 0 and 1, such as 0.1"
            )
        }
        return ValidationSplit(share: validationSplit, seed: seed)
    }
}
