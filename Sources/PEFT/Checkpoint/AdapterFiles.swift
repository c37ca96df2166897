import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Torch

/// The files of an adapter folder, written by any of the supported programs.
package enum AdapterFiles {
    static let configuration = "adapter_config.json"
    static let mlx = "adapters.safetensors"

    private static func has(_ name: String, in folder: URL) -> Bool {
        FileManager.default.fileExists(atPath: folder.appendingPathComponent(name).path)
    }

    /// Opens Hugging Face's weights: safetensors, or else a pickle, in one file or in shards with an index.
    /// - Throws: ``PEFTError`` that names the files found instead.
    static func weights(in folder: URL) throws -> any TensorFile {
        var files = try TensorShards.files(in: folder, "adapter_model.safetensors") { try SafetensorsFile($0) }
        if files.isEmpty { files = try TensorShards.files(in: folder, "adapter_model.bin") { try TorchFile($0) } }
        if files.count == 1 { return files[0] }
        guard files.isEmpty else { return try JoinedTensorFile(files, url: folder) }
        if isMLX(folder) {
            throw PEFTError(
                "\(folder.path) contains an MLX adapter (\(mlx))",
                remedy:
                    "convert it with peft convert \(folder.lastPathComponent) --model … --output …"
            )
        }
        throw PEFTError(
            "\(folder.path) has neither adapter_model.safetensors nor adapter_model.bin; it contains \(contents(of: folder))",
            remedy: "download the weights too")
    }

    /// Whether the folder is an mlx-lm adapter.
    package static func isMLX(_ folder: URL) -> Bool {
        has(mlx, in: folder) && !has("adapter_model.safetensors", in: folder)
    }

    /// Whether the folder has a tokenizer, as trainers often save one with an adapter.
    package static func hasTokenizer(_ folder: URL) throws -> Bool {
        let names = try Tokenizer.files(in: folder).map(\.name)
        return ["tokenizer.json", "spiece.model", "tokenizer.model", "vocab.json", "vocab.txt"].contains {
            names.contains($0)
        }
    }

    /// File names of a folder, for messages.
    private static func contents(of folder: URL) -> String {
        let names = ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? [])
            .filter { !$0.hasPrefix(".") }.sorted()
        guard !names.isEmpty else { return "nothing" }
        return names.prefix(8).joined(separator: ", ") + (names.count > 8 ? ", …" : "")
    }

    /// Resolves an adapter folder: the folder itself, the router among routed adapters in it, or the newest checkpoint of a training
    /// run in it.
    /// - Returns: the folder, with a note for the user if it is another one.
    package static func locate(_ folder: URL) -> (folder: URL, note: String?) {
        guard !has(configuration, in: folder) else { return (folder, nil) }
        let router = folder.appendingPathComponent(ArrowFolder.router)
        if has(configuration, in: router) {
            return (router, "\(folder.path) contains routed adapters; using \(ArrowFolder.router)")
        }
        let found = checkpoints(in: folder)
        guard let newest = found.last else { return (folder, nil) }
        let others = found.count == 1 ? "" : " of \(found.count)"
        return (
            newest.folder,
            "\(folder.path) contains training checkpoints; using the newest\(others), \(newest.folder.lastPathComponent)"
        )
    }

    /// The adapters in a trainer's `checkpoint-STEP` folders, by step.
    private static func checkpoints(in folder: URL) -> [(step: Int, folder: URL)] {
        subfolders(of: folder).compactMap { url in
            let name = url.lastPathComponent
            guard name.hasPrefix("checkpoint-"), let step = Int(name.dropFirst("checkpoint-".count)) else {
                return nil
            }
            return (step, url)
        }.sorted { $0.step < $1.step }
    }

    /// Subfolders that contain an adapter.
    private static func subfolders(of folder: URL) -> [URL] {
        ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []).sorted()
            .map { folder.appendingPathComponent($0) }.filter { has(configuration, in: $0) }
    }

    /// The error for a folder without an adapter configuration.
    static func missingConfiguration(_ folder: URL) -> PEFTError {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: folder.path, isDirectory: &isFolder) else {
            return PEFTError(
                "folder \(folder.path) doesn't exist",
                remedy: "pass an adapter folder written by peft train or Hugging Face PEFT")
        }
        guard isFolder.boolValue else {
            return PEFTError(
                "\(folder.path) is a file, not an adapter folder",
                remedy: "use peft convert for loralib files, GGUF adapters and soft prompts (.npy)")
        }
        let inner = subfolders(of: folder)
        if let example = checkpoints(in: folder).last?.folder ?? inner.last {
            let names = inner.map(\.lastPathComponent).joined(separator: ", ")
            return PEFTError(
                "\(folder.path) has no \(configuration), but its subfolders \(names) do",
                remedy: "pass one of them, such as \(example.path)")
        }
        return PEFTError(
            "\(folder.path) has no \(configuration); it contains \(contents(of: folder))",
            remedy: "pass an adapter folder written by peft train or Hugging Face PEFT")
    }
}
