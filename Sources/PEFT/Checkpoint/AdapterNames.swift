import Foundation
import LanguageModels
import PEFTSupport
import Torch

/// Normalizes tensor names that other programs and wrappers change.
enum AdapterNames {
    /// Path levels that wrappers add: `torch.compile`, FSDP, activation checkpointing.
    private static let wrappers: Set<Substring> = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"]

    /// Whether a state dict puts the adapter's name after this part of a parameter's path, as a saved adapter
    /// doesn't.
    private static func isNamed(_ part: Substring) -> Bool {
        part == "modules_to_save" || part == "trainable_tokens_delta" || part == "ln_tuning_layers"
            || ["lora_", "hada_", "lokr_", "ia3_", "oft_", "boft_", "vera_"].contains { part.hasPrefix($0) }
    }

    /// Strips wrappers (including DistributedDataParallel's `module.`) and the adapter's name from a tensor name.
    static func unwrapped(_ name: String) -> String {
        var parts: [Substring] = []
        for part in name.split(separator: ".", omittingEmptySubsequences: false) where !wrappers.contains(part) {
            if part == "module", parts.isEmpty || parts == ["base_model"] || parts == ["base_model", "model"] {
                continue
            }
            if part == "default", let last = parts.last, isNamed(last) {
                if last == "modules_to_save" { parts.removeLast() }
                continue
            }
            // Mixtral's router before version 5 of transformers.
            if part == "gate", parts.last == "block_sparse_moe" { parts[parts.count - 1] = "mlp" }
            parts.append(part)
        }
        if parts.count > 1, parts.last == "weight", parts[parts.count - 2] == "lora_magnitude_vector" {
            parts.removeLast()
        }
        return parts.joined(separator: ".")
    }

    /// The file with unwrapped tensor names, and factors of single experts as those of all.
    static func unwrapped(_ file: any TensorFile) -> any TensorFile {
        let file = renamed(file)
        return (try? SeparateExperts(file))?.file ?? file
    }

    /// The file with unwrapped tensor names.
    static func renamed(_ file: any TensorFile) -> any TensorFile {
        let names = Dictionary(grouping: file.entries.keys, by: unwrapped)
        // Names that would collide stay as they are, so the check against the model reports them.
        let renamed = names.filter { $0.value.count == 1 && $0.value[0] != $0.key }.mapValues { $0[0] }
        return renamed.isEmpty ? file : RenamedTensorFile(file, renamed)
    }

    /// Candidates for a name that lacks the levels before the module's path: `base_model.model.`, and those that a
    /// headless model (`AutoModel`) lacks.
    static func completed(_ name: String, on model: any LanguageModel) -> [String] {
        let rest =
            [AdapterKeys.prefix, "base_model."].first { name.hasPrefix($0) }
            .map { String(name.dropFirst($0.count)) } ?? name
        return [rest, model.canonicalName(rest)].map { AdapterKeys.prefix + $0 }.filter { $0 != name }
    }
}

/// A tensor file with some tensors renamed.
final class RenamedTensorFile: TensorFile {
    private let file: any TensorFile
    private let original: [String: String]
    let entries: [String: TensorEntry]
    var url: URL { file.url }

    /// - Parameter original: the file's name of each renamed tensor.
    init(_ file: any TensorFile, _ original: [String: String]) {
        (self.file, self.original) = (file, original)
        var entries = file.entries
        for name in original.values { entries[name] = nil }
        for (name, old) in original { entries[name] = file.entries[old] }
        self.entries = entries
    }

    func tensor(_ name: String) throws -> Tensor { try file.tensor(original[name] ?? name) }
    func forget(_ name: String) { file.forget(original[name] ?? name) }
}
