import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch

/// The GGUF formats of llama.cpp.
extension QuantizeCommand {
    /// Writes the model, quantizing one matrix at a time.
    func writeGGUF(_ type: GGUFFormat) throws {
        guard calibration == nil, !double else {
            throw UsageError(
                "--calibration and --double cannot be used with --to \(to)", remedy: "remove them")
        }
        let target = try GGUFTarget.output(output, as: type)
        _ = try model.prepare()
        let folder = try model.folder()
        let loaded = try folder.load()
        // Any tokens show a wrong name or order of rows; what quantization costs on texts, peft evaluate tells.
        let tokens = (0..<32).map { (7 * $0 + 3) % max(1, loaded.vocabularySize) }
        let batches = [loaded.batch([(input: [tokens[0]], target: Array(tokens.dropFirst()))], device: .cpu)]
        let logits = try MergeDrift.logits(of: loaded, on: batches)
        try GGUFTarget.write(loaded, tokenizer: folder.url, as: type, to: target)
        let drift = try GGUFTarget.drift(of: target, as: type, from: logits, on: batches)
        let (before, after) = (folder.weightBytes, try ModelFolder(target).weightBytes)
        guard json else {
            return print(
                "saved to \(output): GGUF \(type.name)\nweights: \(Console.bytes(before)) → \(Console.bytes(after))\n"
                    + GGUFTarget.line(drift, from: "the model's"))
        }
        print(
            JSON.object([
                "output": .string(output), "method": .string("gguf-" + type.name.lowercased()),
                "bytes": .integer(after), "bytes_before": .integer(before),
                "drift": GGUFTarget.json(drift),
            ]).text())
    }
}
