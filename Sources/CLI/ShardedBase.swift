import Foundation
import LanguageModels
import PEFT
import PEFTDistributed
import PEFTSupport
import Torch
import TorchNN
import Training

/// `--shard-base`: a base whose weights are divided among the processes of a run.
enum ShardedBase {
    /// - Throws: ``UsageError`` for options that need the whole base in one process.
    static func check(_ choice: MethodChoice, _ job: DistributedJob?, _ options: Train) throws {
        guard job != nil || options.showBatch else {
            throw UsageError(
                "--shard-base divides the base among processes, but there is only one",
                remedy: "use peft launch -n 2 -- train …, or omit it")
        }
        guard choice.method.peftType != nil else {
            throw UsageError(
                "--shard-base divides a frozen base, but --method \(choice.method.name) trains it",
                remedy: "omit it, or use a method such as lora")
        }
        guard options.addTokens == nil else {
            throw UsageError(
                "--shard-base excludes --add-tokens, which enlarges the base", remedy: "omit one of them")
        }
        guard options.records.samples == 0 else {
            throw UsageError(
                "--shard-base excludes --samples, which generates texts in one process", remedy: "omit one of them")
        }
    }

    /// Agrees with the other processes on the base, since each needs the parts of all.
    /// - Parameter isSharded: whether this process has the option.
    /// - Returns: `nil` if the base is not divided.
    static func make(_ job: DistributedJob?, _ folder: ModelFolder, isSharded: Bool) throws -> PartitionedBase? {
        guard let job else { return nil }
        var shapes = Digest()
        if isSharded {
            for (path, parameter) in try folder.outline().parameters() {
                shapes.add(path)
                shapes.add("\(parameter.tensor.dtype)")
                shapes.add(parameter.tensor.shape)
            }
        }
        let own = [isSharded ? "--shard-base" : "no --shard-base", shapes.text]
        try job.requireAgreement(on: "base", JSONEncoder().encode(own)) {
            let first = try JSONDecoder().decode([String].self, from: $0)
            guard first != own else { return nil }
            return first[0] != own[0] ? "\(first[0]), but this run uses \(own[0])" : "another base model"
        }
        // The weights travel apart from gradients, so that neither waits for the other.
        return isSharded ? PartitionedBase(try job.makeGroup("base")) : nil
    }
}
