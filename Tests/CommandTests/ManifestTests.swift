import Foundation
import TestSupport
import Testing
import Yams

@testable import PEFTCommand

/// The scripts and manifests of `deploy/`: their syntax, and that the program has the options that they use.
struct ManifestTests {
    private static let folder = Checkout.root.appendingPathComponent("deploy")

    private func documents(_ name: String) throws -> [Node] {
        let text = try String(contentsOf: Self.folder.appendingPathComponent(name), encoding: .utf8)
        return Array(try Yams.compose_all(yaml: text))
    }

    /// The words of a peft command are a training run's.
    private func expectTraining(_ words: [String], _ name: String) throws {
        guard case .parse(let arguments) = try Invocation.prepare(words) else {
            Issue.record("\(name) asks for help")
            return
        }
        #expect(try Invocation.parse(arguments) is Train, "\(name): \(words)")
    }

    @Test func manifestsStartTraining() throws {
        let job = try #require(documents("trainjob.yaml").first)
        let trainer = try #require(job["spec"]?["trainer"])
        #expect(job["kind"]?.string == "TrainJob" && trainer["command"]?.array().compactMap(\.string) == ["peft"])
        try expectTraining(trainer["args"]?.array().compactMap(\.string) ?? [], "trainjob.yaml")

        let replicas = try #require(documents("pytorchjob.yaml").first?["spec"]?["pytorchReplicaSpecs"])
        for role in ["Master", "Worker"] {
            let container = try #require(replicas[role]?["template"]?["spec"]?["containers"]?[0])
            #expect(container["command"]?.array().compactMap(\.string) == ["peft", "train"])
            try expectTraining(["train"] + (container["args"]?.array().compactMap(\.string) ?? []), "pytorchjob.yaml")
        }
        #expect(try documents("kubernetes.yaml").allSatisfy { $0["kind"]?.string != nil })
    }

    /// With programs in place of Slurm's, which write down how they are called.
    @Test func theSlurmScriptStartsTraining() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("scontrol", "#!/bin/sh\necho node1; echo node2\n")
        try program.write(
            "srun", "#!/bin/sh\necho \"$MASTER_ADDR $OMP_NUM_THREADS\" > call; printf '%s\\n' \"$@\" >> call\n")
        for name in ["scontrol", "srun"] {
            try FileManager.default.setAttributes(
                [.posixPermissions: 0o755], ofItemAtPath: program.folder.appendingPathComponent(name).path)
        }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/bash")
        process.arguments = [Self.folder.appendingPathComponent("slurm.sh").path]
        process.currentDirectoryURL = program.folder
        process.environment = [
            "PATH": "\(program.folder.path):/usr/bin:/bin", "HOME": "/home/me", "SLURM_CPUS_PER_TASK": "16",
            "SLURM_JOB_NODELIST": "node[1-2]",
        ]
        try process.run()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
        let call = try String(contentsOf: program.folder.appendingPathComponent("call"), encoding: .utf8)
        let lines = call.split(separator: "\n").map(String.init)
        try #require(lines.count > 3 && lines[2] == "peft")
        #expect(lines[0] == "node1 16" && lines[1] == "--kill-on-bad-exit=1")
        try expectTraining(Array(lines[3...]), "slurm.sh")
    }
}
