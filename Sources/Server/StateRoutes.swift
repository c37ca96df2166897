import Foundation
import Hummingbird
import PEFTSupport
import ServiceLifecycle
import Serving

/// `/health`, `/ready` and `/metrics`.
struct StateRoutes: Sendable {
    let engine: Engine
    let names: ModelNames
    let readiness: Readiness

    func add(to router: Router<ServerContext>) {
        router.get("/health") { _, _ in Response(["status": "ok"]) }
        router.get("/ready") { [readiness, engine] _, _ in
            let isReady = !readiness.isDraining && engine.isAccepting
            return Response(
                ["status": isReady ? "ready" : "shutting down"], status: isReady ? .ok : .serviceUnavailable)
        }
        router.get("/metrics") { [engine, names] _, _ in
            let text = MetricsText(
                engine.statistics, adapters: engine.adapters, waiting: engine.waitingAdapters,
                mostAdapters: engine.settings.maxRunning, model: names.base
            ).text
            return Response(
                status: .ok, headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
                body: ResponseBody(byteBuffer: ByteBuffer(string: text)))
        }
    }
}

/// Whether the server is shutting down. As the last service of its group it is told first.
final class Readiness: Service, @unchecked Sendable {
    private let lock = NSLock()
    private var draining = false

    var isDraining: Bool { lock.withLock { draining } }

    func run() async throws {
        try? await gracefulShutdown()
        lock.withLock { draining = true }
    }
}
