import Foundation
import PEFTSupport

/// The place of this process among those that a launcher started, from its environment variables.
package struct LaunchEnvironment: Sendable, Equatable {
    /// The program that started the processes, for messages.
    package var launcher: String
    /// The process's number, from 0, and the number of processes.
    package var rank: Int
    package var size: Int
    /// The same among the processes of this host, if known.
    package var localRank: Int?
    package var localSize: Int?
    /// Where the key-value store is.
    package var host: String
    package var port: Int
    /// Whether rank 0 hosts the store; torchrun's agent may host it.
    package var hostsStore = true
    /// Whether the launcher may have bound each process to some of the processors.
    var bindsProcesses = false
    /// A socket of `peft launch` that rank 0 hosts the store on.
    package var listeningSocket: Int32?
    /// Distinguishes restarts of a job, which may share a store.
    package var attempt = "0"

    /// - Returns: `nil` if this is the only process.
    /// - Throws: ``PEFTError`` for variables that contradict each other, or if the store's address is unknown.
    package static func read(
        _ variables: [String: String] = ProcessInfo.processInfo.environment
    ) throws -> LaunchEnvironment? {
        for launcher in Launcher.all {
            guard let result = try launcher.environment(variables) else { continue }
            return result.size > 1 ? result : nil
        }
        return nil
    }

    /// The number of CPU threads of each process if those of a host divide its processors; `nil` if the user or the
    /// launcher decides.
    /// - Parameters:
    ///   - processors: those that this process may use.
    ///   - all: those of the host.
    package func threads(
        processors: Int, of all: Int, _ variables: [String: String] = ProcessInfo.processInfo.environment
    ) -> Int? {
        guard variables["OMP_NUM_THREADS"] == nil, let localSize, localSize > 1 else { return nil }
        // Open MPI and Slurm bind each process to processors of its own.
        if bindsProcesses, processors < all { return nil }
        return max(1, processors / localSize)
    }
}

/// The variables of one launcher.
private struct Launcher {
    let name: String
    let rank: String
    let size: String
    let localRank: String
    let localSize: String
    /// Whether a variable distinguishes a launched process from others that inherit the launcher's variables.
    var isLaunched: @Sendable ([String: String]) -> Bool = { _ in true }
    /// The host of rank 0, if the launcher tells it.
    var host: @Sendable ([String: String]) -> String? = { _ in nil }
    /// The variable of the store's port.
    var port = "MASTER_PORT"
    /// A variable that differs between jobs, for a port of their own.
    var job: @Sendable ([String: String]) -> String? = { _ in nil }

    static let all = [
        // torchrun, Kubeflow's PyTorchJob and peft launch.
        Launcher(
            name: "torchrun", rank: "RANK", size: "WORLD_SIZE", localRank: "LOCAL_RANK", localSize: "LOCAL_WORLD_SIZE"
        ),
        // Kubeflow's TrainJob without torchrun, which would read these variables itself: one process per node.
        Launcher(
            name: "Kubeflow Trainer", rank: "PET_NODE_RANK", size: "PET_NNODES", localRank: "", localSize: "",
            isLaunched: { ["1", nil].contains($0["PET_NPROC_PER_NODE"]) }, host: { $0["PET_MASTER_ADDR"] },
            port: "PET_MASTER_PORT"),
        Launcher(
            name: "Open MPI", rank: "OMPI_COMM_WORLD_RANK", size: "OMPI_COMM_WORLD_SIZE",
            localRank: "OMPI_COMM_WORLD_LOCAL_RANK", localSize: "OMPI_COMM_WORLD_LOCAL_SIZE",
            job: { $0["PMIX_NAMESPACE"] ?? $0["OMPI_MCA_ess_base_jobid"] }),
        // A batch script inherits the job's variables, but only srun sets those of a step.
        Launcher(
            name: "Slurm", rank: "SLURM_PROCID", size: "SLURM_STEP_NUM_TASKS", localRank: "SLURM_LOCALID",
            localSize: "SLURM_STEP_TASKS_PER_NODE", isLaunched: { $0["SLURM_STEP_NUM_TASKS"] != nil },
            host: { ($0["SLURM_STEP_NODELIST"] ?? $0["SLURM_JOB_NODELIST"]).flatMap(SlurmHosts.first) },
            job: { variables in variables["SLURM_JOB_ID"].map { "\($0).\(variables["SLURM_STEP_ID"] ?? "")" } }),
        // MPICH and Intel MPI.
        Launcher(
            name: "MPI", rank: "PMI_RANK", size: "PMI_SIZE", localRank: "MPI_LOCALRANKID",
            localSize: "MPI_LOCALNRANKS", job: { $0["PMI_ID"] }),
    ]

    func environment(_ variables: [String: String]) throws -> LaunchEnvironment? {
        guard variables[rank] != nil || variables[size] != nil, isLaunched(variables) else { return nil }
        func number(_ name: String) throws -> Int? {
            guard let text = variables[name] else { return nil }
            guard let value = Int(text), value >= 0 else {
                throw PEFTError("\(name) is '\(text)', not a number", remedy: "correct the variable, or unset it")
            }
            return value
        }
        guard let rank = try number(rank), let size = try number(size) else {
            let (known, missing) = variables[rank] != nil ? (rank, size) : (size, rank)
            throw PEFTError("\(known) is set, but \(missing) is not", remedy: "set both, or unset \(known)")
        }
        guard size >= 1, rank < size else {
            throw PEFTError(
                "\(self.rank) is \(rank) and \(self.size) is \(size), but ranks are 0 to the size minus 1",
                remedy: "correct the variables, or unset them")
        }
        // Slurm's is a list such as 4(x2),3.
        let localSize = variables[self.localSize].flatMap { Int($0.prefix(while: \.isNumber)) }
        let port = try number("MASTER_PORT") ?? number(self.port)
        if let port, !(1...65535).contains(port) {
            throw PEFTError(
                "the port of rank 0 is \(port), which is no port", remedy: "set MASTER_PORT to a free port")
        }
        let isLocal = localSize == size
        guard let host = variables["MASTER_ADDR"] ?? host(variables) ?? (isLocal || size == 1 ? "127.0.0.1" : nil)
        else {
            throw PEFTError(
                "\(size) processes were started by \(name), but the host of rank 0 is unknown",
                remedy: "set MASTER_ADDR to its name or address on all hosts (mpirun -x MASTER_ADDR=…)")
        }
        var result = LaunchEnvironment(
            launcher: variables["PEFT_LAUNCH"] != nil ? "peft launch" : name, rank: rank, size: size,
            localRank: try number(localRank), localSize: localSize, host: host,
            port: port ?? Self.port(of: job(variables)))
        result.hostsStore = variables["TORCHELASTIC_USE_AGENT_STORE"] != "True"
        result.bindsProcesses = self.rank != "RANK"
        result.listeningSocket = rank == 0 ? variables["PEFT_LAUNCH_SOCKET"].flatMap { Int32($0) } : nil
        result.attempt = variables["TORCHELASTIC_RESTART_COUNT"] ?? "0"
        return result
    }

    /// A port that all processes of a job derive from its name; PyTorch's usual one without a name.
    private static func port(of job: String?) -> Int {
        guard let job else { return 29500 }
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in job.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return 20000 + Int(hash % 12000)
    }
}

/// Slurm's lists of hosts, such as `node[01-04,07],gpu1`.
enum SlurmHosts {
    /// The first host of a list.
    static func first(_ list: String) -> String? {
        let prefix = list.prefix { $0 != "[" && $0 != "," }
        var rest = list.dropFirst(prefix.count)
        guard rest.first == "[" else { return prefix.isEmpty ? nil : String(prefix) }
        rest = rest.dropFirst()
        let number = rest.prefix { $0.isNumber }
        let suffix = rest.drop { $0 != "]" }.dropFirst().prefix { $0 != "," && $0 != "[" }
        return number.isEmpty ? nil : String(prefix + number + suffix)
    }
}
