import PEFTSupport
import Testing

@testable import PEFTDistributed

struct LaunchEnvironmentTests {
    @Test func launchersAreRecognized() throws {
        let torchrun = try #require(
            try LaunchEnvironment.read([
                "RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a",
                "MASTER_PORT": "1234", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "2",
            ]))
        #expect(torchrun.rank == 3 && torchrun.size == 8 && torchrun.localRank == 1 && torchrun.localSize == 2)
        #expect(torchrun.host == "a" && torchrun.port == 1234 && !torchrun.hostsStore && torchrun.attempt == "2")

        let mpi = try #require(
            try LaunchEnvironment.read([
                "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_NAMESPACE": "prterun-1",
            ]))
        #expect(mpi.rank == 1 && mpi.size == 2 && mpi.host == "127.0.0.1" && (20000..<32000).contains(mpi.port))

        let kubeflow = try #require(
            try LaunchEnvironment.read([
                "PET_NODE_RANK": "1", "PET_NNODES": "4", "PET_NPROC_PER_NODE": "1", "PET_MASTER_ADDR": "job-node-0-0",
                "PET_MASTER_PORT": "29400",
            ]))
        #expect(kubeflow.rank == 1 && kubeflow.size == 4 && kubeflow.host == "job-node-0-0" && kubeflow.port == 29400)

        let slurm = try #require(
            try LaunchEnvironment.read([
                "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "77",
                "SLURM_STEP_NODELIST": "node[07-09,12],gpu1", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
                "PMI_RANK": "2", "PMI_SIZE": "4",
            ]))
        #expect(slurm.rank == 2 && slurm.size == 4 && slurm.host == "node07" && slurm.localSize == 2)
        #expect(slurm.hostsStore && slurm.launcher == "Slurm")
    }

    @Test func oneProcessNeedsNoOthers() throws {
        #expect(try LaunchEnvironment.read([:]) == nil)
        #expect(try LaunchEnvironment.read(["RANK": "0", "WORLD_SIZE": "1"]) == nil)
        // A batch script, whose variables are those of the job, is not one of its tasks.
        #expect(try LaunchEnvironment.read(["SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"]) == nil)
    }

    @Test(arguments: [
        (["RANK": "0"], "RANK is set, but WORLD_SIZE is not"), (["RANK": "x", "WORLD_SIZE": "2"], "RANK is 'x'"),
        (["RANK": "2", "WORLD_SIZE": "2"], "RANK is 2 and WORLD_SIZE is 2"),
        (["RANK": "0", "WORLD_SIZE": "2"], "the host of rank 0 is unknown"),
        (
            ["RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "70000"],
            "the port of rank 0 is 70000"
        ),
    ]) func contradictionsAreErrors(variables: [String: String], message: String) {
        do {
            _ = try LaunchEnvironment.read(variables)
            Issue.record("\(variables) was accepted")
        } catch { #expect("\(error)".contains(message), "\(error)") }
    }

    @Test func processesOfAHostDivideItsProcessors() throws {
        let local = ["RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "a"]
        let launch = try #require(try LaunchEnvironment.read(local))
        #expect(launch.threads(processors: 8, of: 8, [:]) == 2)
        #expect(launch.threads(processors: 2, of: 2, [:]) == 1)
        #expect(launch.threads(processors: 8, of: 8, ["OMP_NUM_THREADS": "3"]) == nil)
        let mpi = ["OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"]
        #expect(try LaunchEnvironment.read(mpi)?.threads(processors: 2, of: 8, [:]) == nil)
    }

    @Test(arguments: [("a1,a2", "a1"), ("n[01-04,07],x", "n01"), ("r1n[3,5]-ib", "r1n3-ib"), ("single", "single")])
    func slurmsFirstHost(list: String, first: String) { #expect(SlurmHosts.first(list) == first) }
}
