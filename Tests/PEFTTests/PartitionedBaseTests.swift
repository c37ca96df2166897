import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN

@testable import PEFT

/// Weights that are gathered part by part, here in a group of one process: whatever reads them elsewhere is an error.
@Suite struct PartitionedBaseTests {
    private static func group() throws -> ProcessGroup {
        let (socket, port) = try NetworkAddress.listenLocally()
        let store = try KeyValueStore(
            host: "127.0.0.1", port: port, isHost: true, listeningSocket: socket, prefix: "test",
            timeout: .seconds(30)
        )
        return try ProcessGroup(store, rank: 0, size: 1, interface: .address("127.0.0.1"), timeout: .seconds(30))
    }

    private static func folder(_ name: String) throws -> ModelFolder {
        let parts = name.split(separator: ":").map(String.init)
        guard parts.count == 2, let task = ModelTask(rawValue: parts[1]) else {
            return try ModelFolder(Models.folder.appendingPathComponent(name))
        }
        return try Models.headFolder(parts[0], task)
    }

    /// Two steps: the losses, and what the adapter's file would contain.
    private static func trained(
        _ choice: MethodChoice, _ model: any LanguageModel, _ mode: ActivationCheckpointing.Mode
    ) throws -> (losses: [Double], tensors: [String: Tensor]) {
        let adapter = try Adapter(choice, on: model, seed: 3)
        let rows = Models.rows(for: model)
        let optimizer = AdamW(adapter.parameters, rateFactors: adapter.rateFactors, weightDecay: 0.01)
        let losses = try withTorchErrors {
            (0..<2).map { step in
                let loss = DropoutScope.run(seed: 4, stream: UInt64(step)) {
                    ActivationCheckpointing.run(mode) {
                        model.computing { model.loss([rows[step], rows[step + 1]]) }
                    }
                }
                loss.backward()
                optimizer.update(learningRate: 1e-2)
                optimizer.clearGradients()
                return loss.item()
            } + [withoutGradients { model.computing { model.loss(rows) } }.item()]
        }
        return (losses, adapter.storedTensors())
    }

    private static func expectEqual(
        _ choice: MethodChoice, _ name: String, mode: ActivationCheckpointing.Mode = .off, group: ProcessGroup,
        load: (PartitionedBase?) throws -> any LanguageModel
    ) throws {
        let plain = try trained(choice, load(nil), mode)
        let base = PartitionedBase(group, smallestBytes: 256)
        let parted = try trained(choice, load(base), mode)
        #expect(parted.losses == plain.losses, "\(name)")
        #expect(Set(parted.tensors.keys) == Set(plain.tensors.keys), "\(name)")
        for (key, tensor) in plain.tensors {
            #expect(parted.tensors[key]?.isIdentical(to: tensor) == true, "\(name): \(key)")
        }
        #expect(base.byteCount > 0 && base.gatherCount > 0, "\(name)")
        // At any time, the part at hand and the one that follows.
        #expect(base.peakGatheredBytes <= 2 * base.largestPartBytes, "\(name)")
    }

    /// Methods that train the base's matrices themselves, or decompose all at once.
    private static let refused = [
        "full": "of which each process has a part", "frod": "needs the weights of several layers at once",
    ]

    @Test(arguments: Set(MethodLawTests.cases.map(\.base)).sorted()) func everyMethodIsEqual(base: String) throws {
        let group = try Self.group()
        for law in MethodLawTests.cases where law.base == base {
            func compare() throws {
                try Self.expectEqual(law.choice, law.testDescription, group: group) {
                    try Self.folder(base).load(partitioning: $0)
                }
            }
            guard let reason = Self.refused[law.choice.method.name] else {
                do { try compare() } catch { Issue.record("\(law.testDescription): \(error)") }
                continue
            }
            let error = try failure(compare)
            #expect(error.problem.contains(reason), "\(law.testDescription): \(error)")
        }
    }

    @Test(arguments: QuantizedBaseTests.storages) func weightFormatsAreEqual(storage: String) throws {
        let group = try Self.group()
        var choice = MethodChoice(try PEFTMethods.named("lora"))
        try choice.set("targets", to: "all-linear")
        try choice.set("dropout", to: "0.1")
        for mode in [ActivationCheckpointing.Mode.off, .keepingInputs] {
            try Self.expectEqual(choice, storage, mode: mode, group: group) {
                try Self.folder("llama").with(weights: WeightStorage(storage)).load(partitioning: $0)
            }
        }
    }

    /// Initializations from the weights, layer by layer.
    @Test(arguments: ["pissa", "olora", "dora"]) func initializationsSeeTheWeights(name: String) throws {
        var choice = MethodChoice(try PEFTMethods.named("lora"))
        if name == "dora" {
            try choice.set("dora", to: "true")
        } else {
            try choice.set("init", to: name)
        }
        try Self.expectEqual(choice, name, group: Self.group()) { try Self.folder("llama").load(partitioning: $0) }
    }
}
