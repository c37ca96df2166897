import Foundation
import LanguageModels
import Support
import Torch

/// llama.cpp's files.
extension QuantizeCommand {
    /// Writes the model, each matrix rounded as its turn comes.
    func writeGGUF(_ type: GGUFType) throws {
        guard calibration == nil, !double else {
            throw UsageError(
                "--calibration or --double was given with --to \(to)", remedy: "they go with other formats")
        }
        let target = try GGUFTarget.output(output, as: type)
        _ = try model.prepare()
        let folder = try model.folder()
        try GGUFTarget.write(folder.load(), tokenizer: folder.url, as: type, to: target)
        let (before, after) = (folder.weightBytes, try ModelFolder(target).weightBytes)
        guard json else {
            return print("\(output): GGUF \(type.name)\nweights: \(Console.bytes(before)) → \(Console.bytes(after))")
        }
        print(
            JSON.object([
                "output": .string(output), "method": .string("gguf-" + type.name.lowercased()),
                "bytes": .integer(after), "bytes_before": .integer(before),
            ]).text())
    }
}
