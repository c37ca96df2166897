import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Torch
import TorchNN

/// The formats of bitsandbytes, which need no calibration data.
extension QuantizeCommand {
    /// The format of `--to`; `nil` for group quantization.
    /// - Throws: ``UsageError`` for options that don't apply to it.
    func storage() throws -> WeightStorage? {
        guard let code = BlockCode(rawValue: to.lowercased()) else {
            guard !double else {
                throw UsageError(
                    "--double cannot be used with --to \(to)", remedy: "use it with nf4 or fp4, or remove it")
            }
            return WeightStorage.quantizers.first { $0.name == to.lowercased() }
        }
        guard BlockQuantization.blocks.contains(block) else {
            throw UsageError(
                "invalid --block \(block)",
                remedy: "use one of \(BlockQuantization.blocks.map(String.init).joined(separator: ", "))")
        }
        return .blocks(BlockQuantization(code, block: block, isDouble: double))
    }

    /// Loads the model, quantizing each projection as it is read, and writes it.
    func keep(_ storage: WeightStorage) throws {
        guard calibration == nil else {
            throw UsageError(
                "--calibration cannot be used with --to \(to)",
                remedy: "use it with \(Self.groupList), or remove it")
        }
        let target = try Output.folder(output)
        let device = try model.prepare()
        let folder = try model.folder()
        guard !folder.isQuantized, model.formats.weights == nil else {
            throw PEFTError(
                "\(folder.url.path) is already quantized, or --weights was given",
                remedy: "use a folder of fp32 or bf16 weights, without --weights")
        }
        try folder.requireFiniteTensors()
        let loaded = try folder.with(weights: storage).load(device: device)
        let outcomes = try folder.outcomes(of: loaded)
        guard !outcomes.isEmpty else {
            throw PEFTError("\(folder.url.path) has no projections to quantize", remedy: "use a language model")
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
        print("saved to \(output): \(storage.name)")
        print("projection                   count      before       after           weight error")
        var names: [String] = []
        for name in outcomes.map({ Self.leaf($0.path) }) where !names.contains(name) { names.append(name) }
        func row(_ name: String, _ outcomes: [StorageOutcome]) {
            let error = outcomes.map(\.error).reduce(0, +) / Double(max(1, outcomes.count)) * 100
            let bytes = [outcomes.reduce(0) { $0 + $1.bytesBefore }, outcomes.reduce(0) { $0 + $1.bytes }].map {
                let text = Console.bytes($0)
                return String(repeating: " ", count: max(0, 12 - text.count)) + text
            }
            print(
                "  \(name.padding(toLength: 24, withPad: " ", startingAt: 0))\(String(format: "%8d", outcomes.count))"
                    + bytes.joined() + String(format: "               %6.2f %%", error))
        }
        for name in names { row(name, outcomes.filter { Self.leaf($0.path) == name }) }
        if names.count > 1 { row("all", outcomes) }
        print("weights: \(Console.bytes(before)) → \(Console.bytes(after))")
    }
}
