/// Limits of an ``Engine``.
public struct EngineSettings: Sendable {
    /// Maximum number of sequences in the running batch.
    public var maxRunning = 32
    /// Maximum number of requests that wait.
    public var maxWaiting = 256
    /// Maximum number of prompt tokens that a step reads, so that running sequences go on meanwhile.
    public var prefillChunk = 256
    /// Memory of all KV caches, in bytes.
    public var cacheBytes = 2 << 30
    /// Memory of all adapters, in bytes.
    public var adapterBytes = 1 << 30
    /// Maximum length of a sequence in tokens; `nil` for that of the model.
    public var contextLength: Int?
    /// Maximum number of new tokens of requests that name none; `nil` for the rest of the context.
    public var defaultNewTokens: Int?

    public init() {}
}
