import Foundation
import LanguageModels
import PEFTSupport
import Torch

/// Soft prompts as arrays `[tokens, size]`, as Google's prompt-tuning released them for T5 (Lester et al. 2021).
package enum SoftPromptFile {
    /// Whether a file name has the extension `.npy`.
    package static func isName(_ url: URL) -> Bool { url.pathExtension.lowercased() == "npy" }

    /// Attaches a prompt-tuning adapter from a `.npy` file on top of the model's active adapters.
    ///
    /// - Throws: ``PEFTError`` unless the array is a prompt with the model's hidden size.
    package static func read(_ url: URL, on model: any LanguageModel) throws -> Adapter {
        let vectors = try NumpyFile.read(url)
        let size = ModelOutline(model).inputs.first?.size
        guard vectors.rank == 2, vectors.dim(0) > 0, vectors.dim(1) == size else {
            throw PEFTError(
                "\(url.path) has shape \(vectors.shape), expected [tokens, \(size ?? 0)] for a soft prompt of this \(model.family) model",
                remedy: "use the model that it was trained on")
        }
        var configuration = PromptTuning.Configuration()
        configuration.tokens = VirtualTokens(stacks: 1)
        configuration.tokens.count = vectors.dim(0)
        configuration.start = PromptStart(.normal)
        let adapter = try Adapter(MethodChoice(PromptTuning.self, configuration), on: model, isLoading: true)
        try withTorchErrors { try adapter.load(["prompt_embeddings": vectors]) }
        return adapter
    }
}
