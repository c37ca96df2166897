import PEFTSupport
import Torch

/// Names of a model's tensors in GGUF files, and the row order there.
package struct GGUFNames: Sendable {
    let architecture: GGUFArchitecture
    let heads: Int
    let keyHeads: Int
    let tensors: GGUFTensorNames
    /// The model's sizes, if it is written.
    private(set) var sizes: GGUFSizes?

    /// - Throws: ``PEFTError`` for a model that GGUF can't represent.
    package init(of model: any LanguageModel) throws {
        func refusal(_ reason: String) -> PEFTError {
            let readable = ModelRegistry.families.filter { $0.gguf.read != nil }
            return PEFTError(
                "a \(model.family) model can't be written as GGUF: \(reason)",
                remedy: "use a causal language model of \(readable.map(\.name).joined(separator: ", "))")
        }
        guard let architecture = model.modelFamily.gguf.written else { throw refusal("the family is not supported") }
        guard let model = model as? any GGUFWritable else {
            throw refusal("its head is not a language-modeling head")
        }
        self.init(architecture, heads: model.ggufSizes.heads, keyHeads: model.ggufSizes.keyHeads)
        sizes = model.ggufSizes
    }

    /// - Parameter tensors: the names in a file, if they depend on it.
    init(_ architecture: GGUFArchitecture, heads: Int, keyHeads: Int, tensors: GGUFTensorNames? = nil) {
        (self.architecture, self.heads, self.keyHeads) = (architecture, heads, keyHeads)
        self.tensors = tensors ?? architecture.tensors
    }

    /// llama.cpp's name of the family.
    package var name: String { architecture.name }

    /// The file's name of a model's tensor; `nil` if it has none, or has the tensor in another form.
    package func tensor(of path: String) -> String? { form(of: path) == nil ? tensors.tensor(of: path) : nil }

    /// The model's path of a file's tensor; `nil` if it has none.
    package func path(of tensor: String) -> String? { tensors.path(of: tensor) }

    /// The stored row of each row of a model's tensor; `nil` if the order is the same.
    /// - Throws: ``PEFTError`` if the rows aren't divisible by the heads.
    func storedRows(_ path: String, rows: Int) throws -> [Int]? {
        guard let order = architecture.rowOrder(of: path, heads: heads, keyHeads: keyHeads) else { return nil }
        guard rows > 0, rows.isMultiple(of: order.unit), heads.isMultiple(of: keyHeads) else {
            throw PEFTError(
                "'\(path)' has \(rows) rows, which aren't divisible by \(heads) heads",
                remedy: "download the file again")
        }
        return order.storedRows(rows)
    }

    /// Reorders the rows of a model's weight, bias or LoRA factor to the file's order.
    package func stored(_ tensor: Tensor, at path: String) throws -> Tensor {
        guard let rows = try storedRows(path, rows: tensor.dim(0)) else { return tensor }
        var order = Array(repeating: 0, count: rows.count)
        for (model, stored) in rows.enumerated() { order[stored] = model }
        return tensor.selecting(Tensor(order))
    }

    /// Reorders rows from the file's order to the model's.
    package func own(_ tensor: Tensor, at path: String) throws -> Tensor {
        guard let rows = try storedRows(path, rows: tensor.dim(0)) else { return tensor }
        return tensor.selecting(Tensor(rows))
    }
}
