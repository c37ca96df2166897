/// Limits of an ``Engine``.
package struct EngineSettings: Sendable {
    /// Maximum number of sequences in the running batch.
    package var maxRunning = 32
    /// Maximum number of requests that wait.
    package var maxWaiting = 256
    /// Maximum number of prompt tokens that a step reads, so that running sequences go on meanwhile.
    package var prefillChunk = 256
    /// Maximum number of tokens of a batch of texts for a model with a head.
    package var encodingBatch = 4096
    /// Memory of all KV caches, in bytes.
    package var cacheBytes = 2 << 30
    /// Whether keys and values of ended sequences are kept, as far as there is memory, for later prompts that begin alike.
    package var keepsPrefixes = true
    /// Memory of all adapters, in bytes.
    package var adapterBytes = 1 << 30
    /// Maximum length of a sequence in tokens; `nil` for that of the model.
    package var contextLength: Int?
    /// Maximum number of new tokens of requests that name none; `nil` for the rest of the context.
    package var defaultNewTokens: Int?
    /// Called on the engine's thread after each step. The engine goes on when it returns.
    package var afterStep: (@Sendable (EngineStatistics) -> Void)?
    /// Called with an adapter's name, not on the engine's thread, before its folder is read for a request that waits.
    package var beforeReading: (@Sendable (String) -> Void)?

    package init() {}
}
