import Foundation
import LanguageModels
import PEFTSupport
import Torch

/// The GGUF formats of llama.cpp.
extension QuantizeCommand {
    /// Writes the model, quantizing one matrix at a time.
    func writeGGUF(_ type: GGUFType) throws {
        guard calibration == nil, !double else {
            throw UsageError(
                "--calibration and --double cannot be used with --to \(to)", remedy: "remove them")
        }
        let target = try GGUFTarget.output(output, as: type)
        _ = try model.prepare()
        let folder = try model.folder()
        try GGUFTarget.write(folder.load(), tokenizer: folder.url, as: type, to: target)
        let (before, after) = (folder.weightBytes, try ModelFolder(target).weightBytes)
        guard json else {
            return print(
                "saved to \(output): GGUF \(type.name)\nweights: \(Console.bytes(before)) → \(Console.bytes(after))")
        }
        print(
            JSON.object([
                "output": .string(output), "method": .string("gguf-" + type.name.lowercased()),
                "bytes": .integer(after), "bytes_before": .integer(before),
            ]).text())
    }
}
