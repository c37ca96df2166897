import Foundation
import LanguageModels
import Support
import Tokenizers
import Torch
import TorchNN

/// bitsandbytes' formats, which need no sample text.
extension QuantizeCommand {
    /// What `--to` asks for; `nil` for integers in groups.
    /// - Throws: ``PEFTError`` for options that don't belong to it.
    func storage() throws -> WeightStorage? {
        guard let code = BlockCode(rawValue: to.lowercased()) else {
            guard !double else {
                throw UsageError("--double was given with --to \(to)", remedy: "it goes with nf4 and fp4")
            }
            return to.lowercased() == "int8" ? .int8 : nil
        }
        guard BlockQuantization.blocks.contains(block) else {
            throw UsageError(
                "--block is \(block)",
                remedy: "there are \(BlockQuantization.blocks.map(String.init).joined(separator: ", "))")
        }
        return .blocks(BlockQuantization(code, block: block, isDouble: double))
    }

    /// Reads the model with each projection rounded as it comes, and writes it.
    func keep(_ storage: WeightStorage) throws {
        guard calibration == nil else {
            throw UsageError(
                "--calibration was given with --to \(to)", remedy: "it goes with int2, int3, int4 and int8-groups")
        }
        let target = try Output.folder(output)
        let device = try model.prepare()
        let folder = try model.folder()
        guard !folder.isQuantized, model.weights == nil else {
            throw PEFTError(
                "\(folder.url.path) is quantised already, or was asked to be",
                remedy: "name a folder of fp32 or bf16 weights, without --weights")
        }
        try folder.requireFiniteTensors()
        let loaded = try folder.keeping(storage).load(device: device)
        let outcomes = try folder.outcomes(of: loaded)
        guard !outcomes.isEmpty else {
            throw PEFTError("\(folder.url.path) has no projections to quantise", remedy: "name a language model")
        }
        let settings = folder.url.appendingPathComponent("generation_config.json")
        let more = FileManager.default.fileExists(atPath: settings.path) ? [FolderFile(copyOf: settings)] : []
        try loaded.save(
            to: target, copying: Tokenizer.files(in: folder.url) + more, dtype: storedType(folder),
            replacing: false)
        report(outcomes, storage, before: folder.weightBytes, after: try ModelFolder(target).weightBytes)
    }

    private func report(_ outcomes: [StorageOutcome], _ storage: WeightStorage, before: Int, after: Int) {
        if json {
            let rows = outcomes.map { outcome -> JSON in
                [
                    "path": .string(outcome.path), "weight_error": .number(outcome.error),
                    "bytes": .integer(outcome.bytes), "bytes_before": .integer(outcome.bytesBefore),
                ]
            }
            print(
                JSON.object([
                    "output": .string(output), "method": .string(storage.name), "projections": .array(rows),
                    "bytes": .integer(after), "bytes_before": .integer(before),
                ]).text())
            return
        }
        print("\(output): \(storage.name)")
        print("projection                  number      before       after   error of the weights")
        var names: [String] = []
        for name in outcomes.map({ Self.leaf($0.path) }) where !names.contains(name) { names.append(name) }
        func row(_ name: String, _ own: [StorageOutcome]) {
            let error = own.map(\.error).reduce(0, +) / Double(max(1, own.count)) * 100
            let bytes = [own.reduce(0) { $0 + $1.bytesBefore }, own.reduce(0) { $0 + $1.bytes }].map {
                let text = Console.bytes($0)
                return String(repeating: " ", count: max(0, 12 - text.count)) + text
            }
            print(
                "  \(name.padding(toLength: 24, withPad: " ", startingAt: 0))\(String(format: "%8d", own.count))"
                    + bytes.joined() + String(format: "               %6.2f %%", error))
        }
        for name in names { row(name, outcomes.filter { Self.leaf($0.path) == name }) }
        if names.count > 1 { row("all", outcomes) }
        print("weights: \(Console.bytes(before)) → \(Console.bytes(after))")
    }
}
