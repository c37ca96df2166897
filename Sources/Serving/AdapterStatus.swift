import Foundation

/// The state of an adapter that the server knows.
public struct AdapterStatus: Sendable, Equatable {
    public enum State: String, Sendable {
        /// Ready.
        case loaded
        /// Known and not in memory; the next request loads it.
        case unloaded
        /// It doesn't fit the model; ``AdapterStatus/problem`` says why.
        case rejected
    }

    public let name: String
    public let folder: URL
    public var state: State
    /// Whether it stays in memory.
    public var isPinned: Bool
    /// Label of its method; `nil` if it was never loaded.
    public var method: String?
    /// Memory of its tensors when it was loaded last; 0 if it never was.
    public var bytes: Int
    /// Whether its sequences share steps with those of other adapters.
    public var sharesBatches: Bool
    /// Number of its virtual tokens.
    public var virtualTokens: Int
    /// Number of its running sequences.
    public var running: Int
    /// Number of its requests so far.
    public var requests: Int
    /// Why it doesn't fit.
    public var problem: String?
}
