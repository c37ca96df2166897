import Foundation
import PEFTSupport
import Torch

/// Conversion of older adapter formats to the current Hugging Face PEFT format.
package enum AdapterConversion {
    /// Reads a folder with `adapter_model.bin`, or with settings and tensor names of older Hugging Face PEFT
    /// versions.
    ///
    /// - Returns: the configuration and the tensors in the current format.
    /// - Throws: ``PEFTError`` if a file is missing or damaged, or the adapter uses fused-projection slices
    ///   (`enable_lora`).
    package static func olderFolder(_ folder: URL) throws -> (
        configuration: [String: JSON], tensors: [String: Tensor]
    ) {
        let file = folder.appendingPathComponent("adapter_config.json")
        guard FileManager.default.fileExists(atPath: file.path) else {
            throw AdapterFiles.missingConfiguration(folder)
        }
        guard var configuration = try JSON.read(file).object else {
            throw PEFTError("\(file.path) is not a JSON object", remedy: "download the file again")
        }
        configuration["peft_type"] = configuration["peft_type"]?.string.map { .string($0.uppercased()) } ?? "LORA"
        if let enabled = configuration["enable_lora"], enabled != .null, enabled != [] {
            throw PEFTError(
                "\(file.path) adapts slices of fused projections ('enable_lora'), which this conversion can't read",
                remedy: "convert the original loralib file with --enable-lora")
        }
        try SeparateExperts(folder, configuration)?.convert(&configuration)
        // Settings that current versions don't know.
        for key in ["enable_lora", "merge_weights", "inference_mode"] { configuration[key] = nil }
        configuration["inference_mode"] = true
        let tensors = try AdapterNames.unwrapped(AdapterFiles.weights(in: folder)).tensors()
        guard !tensors.isEmpty else {
            throw PEFTError("\(folder.path) contains no tensors", remedy: "download the folder again")
        }
        return (configuration, tensors)
    }
}
