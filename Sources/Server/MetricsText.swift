import Foundation
import Serving

/// Metrics in Prometheus' text format, with vLLM's names behind the prefix `peft:`.
struct MetricsText {
    private(set) var text = ""
    private let model: String

    /// - Parameters:
    ///   - waiting: names of the adapters of requests that wait.
    ///   - mostAdapters: maximum number of adapters in a batch.
    init(
        _ statistics: EngineStatistics, adapters: [AdapterStatus], waiting: [String], mostAdapters: Int, model: String
    ) {
        self.model = model
        gauge("num_requests_running", "Number of sequences in the running batch.", Double(statistics.running))
        gauge("num_requests_waiting", "Number of requests that wait.", Double(statistics.waiting))
        gauge(
            "kv_cache_usage_perc", "Reserved fraction of the KV memory; 1 is all of it.",
            Double(statistics.cacheBytes) / Double(max(1, statistics.cacheLimit)))
        gauge("kv_cache_bytes", "Reserved KV memory.", Double(statistics.cacheBytes))
        gauge("prefix_cache_bytes", "Memory of kept prefixes.", Double(statistics.prefixBytes))
        gauge("adapter_memory_bytes", "Memory of the loaded adapters.", Double(statistics.adapterBytes))
        gauge(
            "lora_requests_info", "Time at which requests of these adapters were running and waiting.",
            Date().timeIntervalSince1970,
            [
                "running_lora_adapters": adapters.filter { $0.running > 0 }.map(\.name).joined(separator: ","),
                "waiting_lora_adapters": waiting.joined(separator: ","), "max_lora": "\(mostAdapters)",
            ])
        counter("prompt_tokens", "Number of prompt tokens.", [([:], Double(statistics.promptTokens))])
        counter(
            "prefix_cache_queries", "Number of prompt tokens that were looked up among the kept prefixes.",
            [([:], Double(statistics.prefixQueries))])
        counter(
            "prefix_cache_hits", "Number of prompt tokens that were found among the kept prefixes.",
            [([:], Double(statistics.prefixHits))])
        counter("generation_tokens", "Number of generated tokens.", [([:], Double(statistics.generationTokens))])
        counter(
            "request_success", "Number of finished sequences and failed requests.",
            ["stop", "length", "abort", "error"].map {
                (["finished_reason": $0], Double(statistics.finished[$0] ?? 0))
            })
        counter(
            "request_rejected", "Number of requests rejected as the queue was full.",
            [([:], Double(statistics.rejected))])
        counter("adapter_loads", "Number of loaded adapters.", [([:], Double(statistics.adapterLoads))])
        counter(
            "adapter_evictions", "Number of adapters that made room.", [([:], Double(statistics.adapterEvictions))])
        counter("engine_steps", "Number of steps.", [([:], Double(statistics.steps))])
        counter(
            "adapter_requests", "Number of requests of each adapter.",
            adapters.map { (["adapter": $0.name], Double($0.requests)) })
        histogram("time_to_first_token_seconds", "Time to the first token.", statistics.timeToFirstToken)
        histogram("inter_token_latency_seconds", "Time between two tokens.", statistics.interTokenLatency)
        histogram("e2e_request_latency_seconds", "Time to the last token.", statistics.requestLatency)
        histogram("request_queue_time_seconds", "Time in the queue.", statistics.queueTime)
        histogram("iteration_tokens_total", "Number of tokens of a step.", statistics.tokensPerStep)
    }

    private func labels(_ own: [String: String]) -> String {
        func escaped(_ value: String) -> String {
            value.flatMap { $0 == "\\" ? "\\\\" : $0 == "\"" ? "\\\"" : $0 == "\n" ? "\\n" : String($0) }
                .reduce(into: "") { $0.append($1) }
        }
        let all = own.merging(["model_name": model]) { own, _ in own }.sorted { $0.key < $1.key }
        return "{" + all.map { "\($0.key)=\"\(escaped($0.value))\"" }.joined(separator: ",") + "}"
    }

    private mutating func head(_ name: String, _ help: String, _ type: String) {
        text += "# HELP peft:\(name) \(help)\n# TYPE peft:\(name) \(type)\n"
    }

    private mutating func gauge(_ name: String, _ help: String, _ value: Double, _ own: [String: String] = [:]) {
        head(name, help, "gauge")
        text += "peft:\(name)\(labels(own)) \(value)\n"
    }

    private mutating func counter(_ name: String, _ help: String, _ values: [([String: String], Double)]) {
        head(name + "_total", help, "counter")
        for (own, value) in values { text += "peft:\(name)_total\(labels(own)) \(value)\n" }
    }

    private mutating func histogram(_ name: String, _ help: String, _ values: Histogram) {
        head(name, help, "histogram")
        var sum = 0
        for (bound, count) in zip(values.bounds, values.counts) {
            sum += count
            text += "peft:\(name)_bucket\(labels(["le": "\(bound)"])) \(sum)\n"
        }
        text += "peft:\(name)_bucket\(labels(["le": "+Inf"])) \(values.total)\n"
        text += "peft:\(name)_sum\(labels([:])) \(values.sum)\npeft:\(name)_count\(labels([:])) \(values.total)\n"
    }
}
