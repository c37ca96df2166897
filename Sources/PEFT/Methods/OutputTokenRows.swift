import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Trained rows of an output layer, `[tokens, size]`, that replace its own: only these tokens' logits change.
final class OutputTokenRows: Module, LinearAdapter, AdapterModule {
    @ParameterInfo(wrappedValue: Tensor.empty([0]), key: "rows") private var rows: Tensor
    /// Row indices in the matrix, int64 `[tokens]`.
    private let indices: Tensor
    private let key: String

    static func attachment(_ ids: [Int], of layer: ModelOutline.LinearSite, key: String) throws -> Attachment {
        try TokenRows.check(ids, of: layer.path, entries: layer.outputs)
        return .linear(layer.path, [.init(key, [ids.count, layer.inputs])]) { linear, context in
            OutputTokenRows(linear, ids, key: key, context: context)
        }
    }

    private init(_ linear: Linear, _ ids: [Int], key: String, context: AttachmentContext) {
        self.key = key
        indices = Tensor(ids.map(Int64.init), device: context.device)
        super.init()
        rows = linear.weight.rows(indices, as: context.dtype).detached().to(context.dtype)
    }

    var adapterParameters: [AdapterParameter] { [AdapterParameter(key, _rows.parameter)] }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let own = base.weight
        // The full matrix exists only during the matmul, so that gradients w.r.t. x include the trained rows.
        let numbers = own.denseTensor ?? own.dense(as: rows.dtype)
        let replaced = DenseWeight(numbers.replacing(indices, with: rows.to(numbers.dtype)))
        if base.isBare { return base.project(x, with: replaced) }
        return base(x) + (replaced.project(x, bias: nil) - own.project(x, bias: nil))
    }

    func merged(into weight: Tensor) throws -> Tensor {
        weight.replacing(indices, with: rows.detached().to(weight.dtype))
    }
}
