import PEFTTokenizers

/// A tokenizer that requests share, so that what is derived from it is computed once.
package final class SharedTokenizer: Sendable {
    package let tokenizer: Tokenizer

    package init(_ tokenizer: Tokenizer) { self.tokenizer = tokenizer }
}
