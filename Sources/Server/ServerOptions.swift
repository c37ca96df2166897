import ArgumentParser
import Foundation
import LanguageModels
import PEFTSupport
import Serving
import Torch

/// The options of `peft-server` and `peft serve`.
struct ServerOptions: ParsableArguments {
    @Option(
        name: [.customLong("model"), .short],
        help: ArgumentHelp(
            "Base model: a folder (Hugging Face layout), GGUF file, or name on the Hugging Face Hub.",
            valueName: "model"))
    var model: String
    @Option(help: ArgumentHelp("Name of the base model in the API (default: that of --model).", valueName: "name"))
    var servedName: String?
    @Option(
        help: ArgumentHelp(
            "Adapter to load at the start and keep in memory: a folder or a name on the Hub. Repeatable.",
            valueName: "name=folder"))
    var adapter: [String] = []
    @Option(
        help: ArgumentHelp(
            "Folder whose subfolders are adapters; it is watched for new, changed and removed ones.",
            valueName: "folder"))
    var adaptersDir: String?
    @Option(
        help: ArgumentHelp(
            "Folder from which /v1/load_lora_adapter may load, besides --adapters-dir. Repeatable.",
            valueName: "folder"))
    var allowAdaptersFrom: [String] = []
    @Option(
        help: ArgumentHelp("Folder of training runs and reports to show as pages at /runs.", valueName: "folder"))
    var runs: String?
    @Option(
        help: ArgumentHelp(
            "Seconds between two looks at --adapters-dir, --keys and --tls-certificate.", valueName: "seconds"))
    var scanInterval = 5.0

    @Option(
        help: ArgumentHelp(
            "Task of a model with a head, if neither it nor an adapter says so: \(ModelTask.allCases.map(\.rawValue).joined(separator: ", ")).",
            valueName: "task"))
    var task: String?
    @Option(
        help: ArgumentHelp(
            "Pooling of embeddings: \(Pooling.Mode.allCases.map(\.rawValue).joined(separator: ", ")).",
            valueName: "mode")) var pooling: String?

    @Option(help: "Address to listen on.") var host = "127.0.0.1"
    @Option(help: ArgumentHelp("Port to listen on; 0 picks a free one.", valueName: "port")) var port = 8000
    @Option(
        help: ArgumentHelp(
            "API key that clients must send; repeatable. PEFT_API_KEY adds one that other users of the machine can't see.",
            valueName: "key"))
    var apiKey: [String] = []
    @Option(
        help: ArgumentHelp(
            "YAML or JSON file of API keys, as SHA-256 digests, with the models that each may use and its rates.",
            valueName: "file"))
    var keys: String?
    @Option(
        help: ArgumentHelp(
            "TLS certificate: a PEM file with the server's own, followed by those of its issuers. Serves HTTPS alone.",
            valueName: "file"))
    var tlsCertificate: String?
    @Option(help: ArgumentHelp("Private key of --tls-certificate, a PEM file.", valueName: "file"))
    var tlsKey: String?
    @Option(
        help: ArgumentHelp(
            "Origin whose pages' scripts may read answers, such as https://example.org, or * for all. Repeatable.",
            valueName: "origin"))
    var corsOrigin: [String] = []
    @Option(help: ArgumentHelp("Maximum size of a request's body.", valueName: "size")) var maxBody = ByteSize(
        bytes: 8 << 20)
    @Option(help: ArgumentHelp("Seconds after which a request fails.", valueName: "seconds")) var requestTimeout =
        600.0
    @Option(help: ArgumentHelp("Seconds that requests may take to complete after SIGTERM.", valueName: "seconds"))
    var drainTimeout = 60.0

    @Option(help: ArgumentHelp("Maximum number of sequences in the running batch.", valueName: "n"))
    var maxSequences = 32
    @Option(help: ArgumentHelp("Maximum number of waiting requests; further ones get status 429.", valueName: "n"))
    var maxWaiting = 256
    @Option(help: ArgumentHelp("Maximum number of prompt tokens per step.", valueName: "tokens")) var prefillChunk =
        256
    @Option(help: ArgumentHelp("Memory of all KV caches.", valueName: "size")) var kvMemory = ByteSize(bytes: 2 << 30)
    @Flag(
        name: .customLong("prefix-cache"), inversion: .prefixedNo,
        help: "Keep keys and values of ended requests in unused KV memory, for prompts that begin alike.")
    var prefixCache = true
    @Option(help: ArgumentHelp("Memory of all adapters.", valueName: "size")) var adapterMemory = ByteSize(
        bytes: 1 << 30)
    @Option(
        help: ArgumentHelp("Maximum length of a prompt with its answer (default: the model's).", valueName: "tokens"))
    var maxLength: Int?
    @Option(
        help: ArgumentHelp(
            "Maximum number of new tokens of chat requests that name none (default: the rest of the context).",
            valueName: "tokens"))
    var maxNewTokens: Int?
    @Option(
        help: ArgumentHelp("Chat template: a file, or the name of one of the tokenizer's.", valueName: "template"))
    var chatTemplate: String?

    @Option(help: "Device: cpu, cuda, cuda:N or mps.") var device = "cpu"
    @Option(
        help: ArgumentHelp("Data type of weights and activations: float32, bfloat16 or float16.", valueName: "type"))
    var precision = "float32"
    @Option(
        help: ArgumentHelp(
            "Weight format of the base's projections: \(WeightStorage.names.joined(separator: ", ")), int4-g32 and other group-wise integers.",
            valueName: "format"))
    var weights: String?
    @Option(help: ArgumentHelp("Weight format of the embedding table and the output layer.", valueName: "format"))
    var embeddingWeights: String?
    @Option(help: ArgumentHelp("Number of CPU threads.", valueName: "n")) var threads: Int?

    @Option(
        help: ArgumentHelp(
            "YAML or JSON file with options; those on the command line take precedence.", valueName: "file"))
    var config: String?
    @Option(help: "Log level: debug, info, notice, warning or error.") var logLevel = "info"
    @Option(help: "Log format: json or text.") var logFormat = LogFormat.json

    enum LogFormat: String, ExpressibleByArgument, CaseIterable { case json, text }

    func validate() throws {
        func require(_ name: String, _ value: Int?, atLeast least: Int = 1) throws {
            if let value, value < least { throw ValidationError("--\(name) is \(value); use \(least) or more") }
        }
        func require(_ name: String, _ value: Double) throws {
            if !(value > 0 && value < 1e7) {
                throw ValidationError("--\(name) is \(value); use a number of seconds above 0")
            }
        }
        guard (0...65535).contains(port) else {
            throw ValidationError("--port is \(port); use a value from 0 to 65535")
        }
        guard (tlsCertificate == nil) == (tlsKey == nil) else {
            throw ValidationError(
                "--tls-\(tlsKey == nil ? "certificate needs --tls-key" : "key needs --tls-certificate"); use both or none"
            )
        }
        try require("max-sequences", maxSequences)
        try require("max-waiting", maxWaiting)
        try require("prefill-chunk", prefillChunk)
        try require("max-length", maxLength, atLeast: 2)
        try require("max-new-tokens", maxNewTokens)
        try require("threads", threads)
        try require("scan-interval", scanInterval)
        try require("request-timeout", requestTimeout)
        try require("drain-timeout", drainTimeout)
    }

    var engine: EngineSettings {
        var settings = EngineSettings()
        (settings.maxRunning, settings.maxWaiting, settings.prefillChunk) = (maxSequences, maxWaiting, prefillChunk)
        (settings.cacheBytes, settings.adapterBytes) = (kvMemory.bytes, adapterMemory.bytes)
        (settings.contextLength, settings.defaultNewTokens) = (maxLength, maxNewTokens)
        settings.keepsPrefixes = prefixCache
        return settings
    }

    /// Name of the base model in the API.
    var baseName: String {
        if let servedName { return servedName }
        let path = NSString(string: model).expandingTildeInPath
        return FileManager.default.fileExists(atPath: path) ? URL(fileURLWithPath: path).lastPathComponent : model
    }

    /// `nil` for plain HTTP.
    var tls: TLSFiles? {
        guard let tlsCertificate, let tlsKey else { return nil }
        return TLSFiles(certificate: tlsCertificate, key: tlsKey)
    }

    /// The clients with keys of the command line, the environment and `--keys`.
    func clients() throws -> [Client] {
        let own = apiKey + [ProcessInfo.processInfo.environment["PEFT_API_KEY"] ?? ""].filter { !$0.isEmpty }
        return try own.enumerated().map { Client(name: "key \($0 + 1)", key: $1) } + (keys.map(Client.read) ?? [])
    }
}

/// A size in bytes, as in 512MB, 2GiB or 1000000.
struct ByteSize: ExpressibleByArgument, CustomStringConvertible {
    let bytes: Int

    init(bytes: Int) { self.bytes = bytes }

    init?(argument: String) {
        let units: [(suffix: String, factor: Double)] = [
            ("kib", 1024), ("mib", 1_048_576), ("gib", 1_073_741_824), ("tib", 1_099_511_627_776), ("kb", 1e3),
            ("mb", 1e6),
            ("gb", 1e9),
            ("tb", 1e12), ("k", 1024), ("m", 1_048_576), ("g", 1_073_741_824), ("b", 1), ("", 1),
        ]
        let text = argument.lowercased()
        guard let unit = units.first(where: { text.hasSuffix($0.suffix) }),
            let value = Double(text.dropLast(unit.suffix.count)), value > 0, value * unit.factor < 1e15
        else { return nil }
        bytes = Int(value * unit.factor)
    }

    var description: String {
        for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
        where bytes >= factor && bytes.isMultiple(of: factor) {
            return "\(bytes / factor)\(unit)"
        }
        return "\(bytes)"
    }

    var defaultValueDescription: String { description }
}
