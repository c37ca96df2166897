import LanguageModels

/// An example as token ids.
public struct EncodedExample: Sendable {
    /// The example in the form that models take.
    package let row: TrainingRow
    /// Token ids of the prompt, end token included.
    public var input: [Int] { row.input }
    /// Token ids of the target, end token included, or the labels of a head. All tokens contribute to the loss, unless
    /// ``loss`` masks some.
    public var target: [Int] { row.target }
    /// Loss mask over ``target``, for conversations of decoder-only models; `nil` if all tokens contribute.
    public let loss: [Bool]?
    /// The row of the data file, if it comes from one.
    package var location: Row.Location?

    /// - Parameters:
    ///   - input: token ids of the input, with special tokens.
    ///   - target: token ids of the target.
    ///   - loss: the target tokens that contribute to the loss; `nil` for all.
    public init(input: [Int], target: [Int], loss: [Bool]? = nil) {
        row = TrainingRow(input: input, target: target)
        self.loss = loss?.allSatisfy { $0 } ?? true ? nil : loss
    }

    package init(_ row: TrainingRow, at location: Row.Location? = nil) {
        (self.row, loss, self.location) = (row, nil, location)
    }

    /// Tokens of input and target.
    package var length: Int { input.count + target.count }
    /// Tokens that contribute to the loss.
    package var lossCount: Int { loss?.count { $0 } ?? target.count { $0 >= 0 } }
    /// Target tokens up to the last that contributes to the loss.
    var learnedLength: Int { loss.map { ($0.lastIndex(of: true) ?? -1) + 1 } ?? target.count }
}
