import Foundation
import PEFTSupport
import Torch

/// How the processes of a job find each other: each tells rank 0 its version, host and address.
struct Rendezvous {
    /// What each rank is called in messages.
    let names: [String]
    let interface: ProcessGroup.Interface

    private struct Hello: Codable {
        var version: String
        var host: String
        var process: Int32
        var address: String
    }

    private struct Start: Codable {
        var names: [String]
        var failure: String?
    }

    init(_ store: KeyValueStore, _ launch: LaunchEnvironment, _ timing: CollectiveTiming) throws {
        let variables = ProcessInfo.processInfo.environment
        let named = variables["GLOO_SOCKET_IFNAME"]
        var address = try named == nil ? NetworkAddress.local(toward: launch.host) : ""
        let own = Hello(version: Version.current, host: Self.hostName, process: getpid(), address: address)
        if launch.rank > 0 {
            try store.set(Keys.hello(launch.rank), JSONEncoder().encode(own))
            let data: Data
            do { data = try store.data(Keys.start, within: timing.join + .seconds(5)) } catch {
                throw PEFTError(
                    "rank \(launch.rank): rank 0 at \(launch.host):\(launch.port) did not start the job within \(timing.join.components.seconds) s",
                    remedy: "check that all \(launch.size) processes were started")
            }
            let start = try JSONDecoder().decode(Start.self, from: data)
            // Rank 0 shows it.
            if let failure = start.failure { throw RankFailure(description: failure, isShown: false) }
            names = start.names
        } else {
            let hellos = [own] + (try Self.hellos(store, launch, timing))
            names = hellos.enumerated().map { Self.name($0, $1, hellos) }
            if let other = hellos.firstIndex(where: { $0.version != own.version }) {
                let problem =
                    "\(names[other]) runs swift-peft \(hellos[other].version), but rank 0 runs \(own.version)"
                try store.set(Keys.start, JSONEncoder().encode(Start(names: names, failure: problem)))
                usleep(500_000)
                throw PEFTError(problem, remedy: "install the same version on all hosts")
            }
            // MASTER_ADDR is often a name that this host resolves to its loopback interface.
            if NetworkAddress.isLoopback(address),
                let remote = hellos.first(where: { !$0.address.isEmpty && !NetworkAddress.isLoopback($0.address) })
            {
                address = try NetworkAddress.local(toward: remote.address)
            }
            try store.set(Keys.start, JSONEncoder().encode(Start(names: names)))
        }
        interface = named.map { .named($0) } ?? .address(address)
    }

    /// What the other ranks say.
    private static func hellos(
        _ store: KeyValueStore, _ launch: LaunchEnvironment, _ timing: CollectiveTiming
    ) throws -> [Hello] {
        let end = ContinuousClock.now + timing.join
        var missing = Array(1..<launch.size)
        while !missing.isEmpty {
            missing = try missing.filter { try !store.has(Keys.hello($0)) }
            guard ContinuousClock.now < end || missing.isEmpty else {
                let problem =
                    "\(missing.count == 1 ? "rank" : "ranks") \(missing.map(String.init).joined(separator: ", ")) did not start within \(timing.join.components.seconds) s"
                try store.set(Keys.start, JSONEncoder().encode(Start(names: [], failure: problem)))
                usleep(500_000)
                throw PEFTError(problem, remedy: "look for their errors, or set PEFT_JOIN_TIMEOUT to more seconds")
            }
            if !missing.isEmpty { usleep(20_000) }
        }
        return try (1..<launch.size).map {
            try JSONDecoder().decode(Hello.self, from: store.data(Keys.hello($0), within: .seconds(10)))
        }
    }

    /// `rank 1`, with its host if there are several.
    private static func name(_ rank: Int, _ hello: Hello, _ all: [Hello]) -> String {
        let isOneHost = all.allSatisfy { $0.host == hello.host }
        return "rank \(rank) (\(isOneHost ? "" : "\(hello.host), ")process \(hello.process))"
    }

    private static var hostName: String {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "?" }
        return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}
