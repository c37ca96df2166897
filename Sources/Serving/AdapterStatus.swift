import Foundation

/// The state of an adapter that the server knows.
package struct AdapterStatus: Sendable, Equatable {
    package enum State: String, Sendable {
        /// Ready.
        case loaded
        /// Known and not in memory; the next request loads it.
        case unloaded
        /// It doesn't fit the model; ``AdapterStatus/problem`` says why.
        case rejected
    }

    package let name: String
    package let folder: URL
    package var state: State
    /// Whether it stays in memory.
    package var isPinned: Bool
    /// Label of its method; `nil` if it was never loaded.
    package var method: String?
    /// Memory of its tensors when it was loaded last; 0 if it never was.
    package var bytes: Int
    /// Whether its sequences share steps with those of other adapters.
    package var sharesBatches: Bool
    /// Number of its virtual tokens.
    package var virtualTokens: Int
    /// Number of its running sequences.
    package var running: Int
    /// Number of its requests so far.
    package var requests: Int
    /// Why it doesn't fit.
    package var problem: String?
    /// A number that no other adapter of the engine had; replacing an adapter changes it.
    package var version: Int
    /// Whether its folder was read for the next load.
    var isRead = false
}
