/// A histogram with fixed upper bounds.
package struct Histogram: Sendable {
    /// Upper bounds, ascending.
    package let bounds: [Double]
    /// Number of values up to each bound and above the last, not cumulative.
    package private(set) var counts: [Int]
    package private(set) var sum = 0.0

    package init(bounds: [Double]) {
        self.bounds = bounds
        counts = Array(repeating: 0, count: bounds.count + 1)
    }

    package var total: Int { counts.reduce(0, +) }

    mutating func record(_ value: Double) {
        counts[bounds.firstIndex { value <= $0 } ?? bounds.count] += 1
        sum += value
    }

    /// Bounds for latencies in seconds.
    static let seconds: [Double] = [
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
    ]
    static let tokens: [Double] = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]
}

/// Counters of an ``Engine`` since its start.
package struct EngineStatistics: Sendable {
    /// Number of sequences in the running batch, and of requests that wait.
    package internal(set) var running = 0
    package internal(set) var waiting = 0
    /// Reserved KV memory and its limit, in bytes.
    package internal(set) var cacheBytes = 0
    package internal(set) var cacheLimit = 0
    /// Memory of the loaded adapters and its limit, in bytes.
    package internal(set) var adapterBytes = 0
    package internal(set) var adapterLimit = 0
    /// Memory of the kept prefixes, in bytes.
    package internal(set) var prefixBytes = 0
    /// Number of prompt tokens that were looked up among the kept prefixes, and of those found.
    package internal(set) var prefixQueries = 0
    package internal(set) var prefixHits = 0
    package internal(set) var promptTokens = 0
    package internal(set) var generationTokens = 0
    /// Number of finished choices by reason: `stop`, `length`, `abort`, `error`.
    package internal(set) var finished: [String: Int] = [:]
    /// Number of requests that were rejected because the queue was full.
    package internal(set) var rejected = 0
    package internal(set) var adapterLoads = 0
    package internal(set) var adapterEvictions = 0
    package internal(set) var steps = 0
    package internal(set) var timeToFirstToken = Histogram(bounds: Histogram.seconds)
    package internal(set) var interTokenLatency = Histogram(bounds: Histogram.seconds)
    package internal(set) var requestLatency = Histogram(bounds: Histogram.seconds)
    package internal(set) var queueTime = Histogram(bounds: Histogram.seconds)
    package internal(set) var tokensPerStep = Histogram(bounds: Histogram.tokens)
}
