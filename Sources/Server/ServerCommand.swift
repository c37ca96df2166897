import ArgumentParser
import Foundation
import Hummingbird
import HummingbirdTLS
import LanguageModels
import Logging
import PEFT
import PEFTHub
import PEFTSupport
import PEFTTokenizers
import ServiceLifecycle
import Serving
import Torch
import Training

@main
struct ServerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "peft-server",
        abstract: "Serve a base model and many adapters over OpenAI's API.",
        discussion: """
            peft serve --model my-model --adapter mail=adapters/mail --adapters-dir adapters

            curl localhost:8000/v1/completions -H 'Content-Type: application/json' \\
              -d '{"model": "mail", "prompt": "Dear", "max_tokens": 32}'

            Requests of all adapters share one base model and its decode steps. 'model' names the base, an adapter, or
            base:adapter. docs/serving.md describes the endpoints.
            """,
        version: Version.current)

    @OptionGroup var options: ServerOptions

    static func main() async {
        StandardStreams.reserveClosed()
        signal(SIGPIPE, SIG_IGN)
        do {
            if CommandLine.arguments.dropFirst().first == RunsCommand.configuration.commandName {
                var runs = try RunsCommand.parseAsRoot(Array(CommandLine.arguments.dropFirst(2)))
                return try runs.run()
            }
            // --help is a command of its own.
            var command = try parseAsRoot(
                ServerConfiguration.expanded(Array(CommandLine.arguments.dropFirst())))
            if var server = command as? ServerCommand { try await server.run() } else { try command.run() }
        } catch let error as PEFTError {
            fail(error.description)
        } catch let error as ServingError {
            fail(error.description)
        } catch { exit(withError: error) }
    }

    private static func fail(_ message: String) -> Never {
        _ = StandardStreams.write("error: \(message)\n", to: STDERR_FILENO, .milliseconds(1000))
        Foundation.exit(1)
    }

    mutating func run() async throws {
        let options = options
        Runtime.keepFreedMemory()
        Runtime.reportTruncatedFiles()
        guard let level = Logger.Level(rawValue: options.logLevel) else {
            throw ValidationError(
                "unknown log level '\(options.logLevel)'; use debug, info, notice, warning or error")
        }
        LoggingSystem.bootstrap { _ in ServerLogHandler(level: level, isJSON: options.logFormat == .json) }
        let logger = Logger(label: "peft-server")
        let certificate = try options.tls.map(ServedCertificate.init)
        let keys = try APIKeys(options.clients())
        let folder = try Self.folder(options)
        let url = folder.url
        let baseHasHead = try !folder.lacksHead()
        let tokenizer = try Tokenizer.load(folder: url)
        let device = try Device(options.device)
        logger.info("loading", metadata: ["model": .string(options.model)])
        let engine = try await Engine.start(options.engine, tokenizer: tokenizer) {
            if let threads = options.threads { Runtime.threads = threads }
            return try Self.folder(options).load(device: device)
        }
        let names = ModelNames(base: options.baseName, engine: engine)
        let pinned = try await loadPinned(engine, names, logger)
        let watched = options.adaptersDir.map { NSString(string: $0).expandingTildeInPath }
        if let watched, !FileManager.default.fileExists(atPath: watched) {
            throw PEFTError("there is no folder '\(watched)'", remedy: "create it, or leave out --adapters-dir")
        }
        let router = Router(context: ServerContext.self)
        // Around the log, which turns errors into answers that scripts may read, too.
        if !options.corsOrigin.isEmpty { router.add(middleware: CORS(origins: Set(options.corsOrigin))) }
        router.add(middleware: RequestLog())
        router.add(middleware: APIKeyMiddleware(keys: keys))
        let frontEnds = try FrontEnds(engine, folder: folder, template: options.chatTemplate)
        let limits = RequestLimits(seconds: options.requestTimeout)
        CompletionRoutes(
            engine: engine, names: names, frontEnds: frontEnds, limits: limits, maxBody: options.maxBody.bytes
        ).add(to: router)
        HeadRoutes(
            engine: engine, names: names, frontEnds: frontEnds, limits: limits, maxBody: options.maxBody.bytes,
            baseHasHead: baseHasHead
        ).add(to: router)
        let paths = AdapterPaths(options.allowAdaptersFrom + (watched.map { [$0] } ?? []))
        AdapterRoutes(engine: engine, names: names, paths: paths, maxBody: options.maxBody.bytes).add(to: router)
        let readiness = Readiness()
        StateRoutes(engine: engine, names: names, readiness: readiness).add(to: router)
        try addPages(engine, names, keys, to: router)
        // Connections that send nothing, or half a request, are closed.
        let patience: Int64 = 75
        let application = Application(
            router: router,
            server: try certificate.map {
                try .tls(
                    .http1(configuration: .init(idleTimeout: .seconds(patience))), tlsConfiguration: $0.configuration)
            } ?? .http1(configuration: .init(idleTimeout: .seconds(patience))),
            configuration: .init(address: .hostname(options.host, port: options.port), serverName: "peft-server"),
            onServerRunning: { channel in
                logger.info(
                    "listening",
                    metadata: [
                        "scheme": .string(certificate == nil ? "http" : "https"), "host": .string(options.host),
                        "port": .stringConvertible(channel.localAddress?.port ?? options.port),
                        "model": .string(names.base),
                        "context_length": .stringConvertible(engine.model.contextLength),
                    ])
            }, logger: logger)
        var services: [any Service] = [application]
        if let watched {
            services.append(
                AdapterWatcher(
                    folder: URL(fileURLWithPath: watched), engine: engine, names: names,
                    interval: .seconds(options.scanInterval), logger: logger, reserved: pinned))
        }
        if let reloader = reloader(keys, certificate, logger) { services.append(reloader) }
        services.append(readiness)
        var group = ServiceGroupConfiguration(
            services: services, gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
        group.maximumGracefulShutdownDuration = .seconds(options.drainTimeout)
        do { try await ServiceGroup(configuration: group).run() } catch is CancellationError {
            logger.warning("requests were not complete within --drain-timeout")
        }
        engine.stop()
        logger.info("stopped")
    }

    /// Reads the files of `--keys` and `--tls-certificate` again when it has to; `nil` without such files.
    private func reloader(_ keys: APIKeys, _ certificate: ServedCertificate?, _ logger: Logger) -> FileReloader? {
        var entries: [FileReloader.Entry] = []
        if let path = options.keys {
            entries.append(
                .init(name: "keys", paths: [path]) { [options] in
                    if try keys.replace(options.clients()) { PageSessions.shared.endAll() }
                })
        }
        if let certificate {
            let files = certificate.files
            entries.append(
                .init(name: "certificate", paths: [files.certificate, files.key], reload: certificate.reload))
        }
        guard !entries.isEmpty else { return nil }
        return FileReloader(entries, interval: options.scanInterval, logger: logger)
    }

    /// Loads the adapters of `--adapter`.
    /// - Returns: their names.
    private func loadPinned(_ engine: Engine, _ names: ModelNames, _ logger: Logger) async throws -> Set<String> {
        var loaded: Set<String> = []
        for option in options.adapter {
            let (name, path) = Self.split(option)
            do { try names.requireValid(name) } catch let error as APIError { throw PEFTError(error.message) }
            let folder = try Self.adapterFolder(path)
            try await engine.loadAdapter(name, from: folder, isPinned: true)
            loaded.insert(name)
            logger.info("adapter loaded", metadata: ["adapter": .string(name), "path": .string(folder.path)])
        }
        return loaded
    }

    /// Splits `name=folder`; a folder without a name is named after itself.
    private static func split(_ option: String) -> (name: String, path: String) {
        guard let equals = option.firstIndex(of: "="), equals != option.startIndex, !option[..<equals].contains("/"),
            !FileManager.default.fileExists(atPath: option)
        else { return (URL(fileURLWithPath: option).lastPathComponent, option) }
        return (String(option[..<equals]), String(option[option.index(after: equals)...]))
    }

    private static func adapterFolder(_ path: String) throws -> URL {
        AdapterFiles.locate(
            try ModelLocator.adapter(path) { try HubClient(HubSettings()).pull($0, $1).folder }
        ).folder
    }

    /// The head that the model needs for its adapters: that of the first one with a head, else the model's own, else that of
    /// `--task`.
    private static func head(_ options: ServerOptions, _ folder: ModelFolder) throws -> ModelHead? {
        func head(_ adapter: URL) throws -> ModelHead? {
            try TrainingRecord.read(in: adapter)?.trainedHead ?? (try? AdapterFolder(adapter))?.head(on: folder)
        }
        for option in options.adapter {
            if let head = try head(adapterFolder(split(option).path)) { return head }
        }
        if let watched = options.adaptersDir.map({ URL(fileURLWithPath: NSString(string: $0).expandingTildeInPath) })
        {
            let names = (try? FileManager.default.contentsOfDirectory(atPath: watched.path)) ?? []
            for name in names.sorted() {
                // Damaged ones are rejected later.
                if let head = try? head(watched.appendingPathComponent(name)) { return head }
            }
        }
        if let head = try TrainingRecord.read(in: folder.url)?.trainedHead { return head }
        guard options.task != nil || options.pooling != nil else { return nil }
        let task = try options.task.map { name in
            guard let task = ModelTask(rawValue: name) else {
                throw PEFTError(
                    "unknown task '\(name)'",
                    remedy: "use one of \(ModelTask.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            return task
        }
        let pooling = try options.pooling.map { name in
            guard let mode = Pooling.Mode(rawValue: name) else {
                throw PEFTError(
                    "unknown pooling '\(name)'",
                    remedy: "use one of \(Pooling.Mode.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            return mode
        }
        return try TaskChoice(task: task, pooling: pooling).head(for: folder, rows: [])
    }

    private static func folder(_ options: ServerOptions) throws -> ModelFolder {
        let url = try ModelLocator.folder(options.model, needing: .weights) {
            try HubClient(HubSettings()).pull($0, $1).folder
        }
        var folder = try ModelFolder(url)
        if let weights = options.weights {
            folder = folder.with(weights: try WeightStorage(weights))
        } else if options.precision == "float32", options.device == "cpu" {
            folder = folder.keepingStoredWeights()
        }
        if let format = options.embeddingWeights {
            folder = folder.with(embeddings: try WeightStorage(embeddings: format))
        }
        guard let type = ["float32": DType.float32, "bfloat16": .bfloat16, "float16": .float16][options.precision]
        else {
            throw PEFTError("unknown precision '\(options.precision)'", remedy: "use float32, bfloat16 or float16")
        }
        folder.precision = type
        return folder.with(try head(options, folder))
    }
}
