import Torch

/// A projection of all experts of a layer, x `[tokens, inputs]` by the matrix of each token's experts, with an ordered list of
/// adapters. Its path is that of its tensor, as Hugging Face's models have one tensor for all experts.
package final class ExpertLinear: Module, AdapterSite {
    package var weight: any ExpertWeight
    private var slot = AdapterSlot<any ExpertAdapter>()

    package var experts: Int { weight.experts }
    package var inputs: Int { weight.inputs }
    package var outputs: Int { weight.outputs }
    /// The adapters that all sequences use.
    package var adapters: [any ExpertAdapter] { slot.active }

    /// Matrices whose values are set later.
    ///
    /// - Parameter isTransposed: whether files have `[experts, inputs, outputs]`.
    package init(_ inputs: Int, _ outputs: Int, experts: Int, isTransposed: Bool = false, device: Device = .meta) {
        let shape = isTransposed ? [experts, inputs, outputs] : [experts, outputs, inputs]
        weight = DenseExperts(.empty(shape, device: device), isTransposed: isTransposed)
    }

    package override func ownParameters() -> [(key: String, parameter: Parameter)] {
        weight.areSiblings ? [] : weight.parameters
    }

    /// x `[tokens, inputs]`, or `[assignments, inputs]` in the order of experts -> `[assignments, outputs]` in that order.
    package func callAsFunction(
        _ x: Tensor, bias: Tensor? = nil, routing: ExpertRouting, isOrdered: Bool
    ) -> Tensor {
        guard weight.hasSwappedPairs else {
            return Functions.expertLinear(
                x, weight.matrices, bias: bias, update: update, routing: routing, isOrdered: isOrdered)
        }
        let swapped = update.map { (a: $0.a.swappingPairs, b: $0.b, scale: $0.scale) }
        return Functions.expertLinear(
            x.swappingPairs, weight.matrices, bias: bias, update: swapped, routing: routing, isOrdered: isOrdered)
    }

    /// The adapters' deltas as one: their factors side by side.
    private var update: (a: Tensor, b: Tensor, scale: Double)? {
        let factors = slot.active.map(\.factors)
        guard let first = factors.first else { return nil }
        guard factors.count > 1 else { return first }
        return (
            Tensor.concatenated(factors.map(\.a), axis: 1),
            Tensor.concatenated(factors.map { $0.b * $0.scale }, axis: 2), 1
        )
    }

    /// Tokens of one expert may belong to sequences with different adapters, so routes aren't supported.
    package func attach(_ adapter: Module, route: Int?) -> Bool {
        route == nil && slot.attach(adapter, route: nil)
    }
    package func attachBeneath(_ adapter: Module) { slot.attachBeneath(adapter) }
    package func detach(_ adapter: Module) { slot.detach(adapter) }
    package func clear(route: Int) {}
    package var attached: [Module] { slot.modules }
}

/// An adapter that adds a low-rank matrix to that of each expert.
package protocol ExpertAdapter: Module {
    /// A `[experts, rank, inputs]`, B `[experts, outputs, rank]`, and the factor of B_e A_e.
    var factors: (a: Tensor, b: Tensor, scale: Double) { get }
    /// The matrices `[experts, outputs, inputs]` with the adapter's added.
    func merged(into weight: Tensor) throws -> Tensor
}

/// The matrices of all experts in some format.
package protocol ExpertWeight {
    var experts: Int { get }
    var outputs: Int { get }
    var inputs: Int { get }
    /// The stored tensors, named relative to the projection; the name of a dense one is empty.
    var parameters: [(key: String, parameter: Parameter)] { get }
    var matrices: ExpertMatrices { get }
    /// The dequantized matrices, `[experts, outputs, inputs]`.
    func dense(as type: DType) -> Tensor
    /// Whether files have `[experts, inputs, outputs]`.
    var isTransposed: Bool { get }
    /// Whether ``matrices`` have inputs 2i and 2i + 1 in the place of each other.
    var hasSwappedPairs: Bool { get }
    /// Whether the names of the tensors follow the projection's without a dot, beside it.
    var areSiblings: Bool { get }
    /// Name of the format in reports and errors, such as `nf4`.
    var formatName: String { get }
    var precision: WeightPrecision { get }
    /// How a folder declares the format; `nil` if none does.
    var declaration: WeightDeclaration? { get }
    /// The weight in the form in which it computes, once a file's values are loaded.
    func loaded() -> any ExpertWeight
    /// The same format with other values `[experts, outputs, inputs]`.
    func replacing(with dense: Tensor) throws -> any ExpertWeight
}

extension ExpertWeight {
    package var isTransposed: Bool { false }
    package var hasSwappedPairs: Bool { false }
    package var areSiblings: Bool { false }
    package var declaration: WeightDeclaration? { nil }
    package func loaded() -> any ExpertWeight { self }
    /// Paths of the tensors of a projection at `path`.
    package func paths(at path: String) -> [String] {
        parameters.map { $0.key.isEmpty ? path : areSiblings ? path + $0.key : "\(path).\($0.key)" }
    }
}

extension Tensor {
    /// x `[…, size]` with components 2i and 2i + 1 in the place of each other.
    fileprivate var swappingPairs: Tensor {
        reshaped(Array(shape.dropLast()) + [dim(-1) / 2, 2]).flipped(axis: -1).reshaped(shape)
    }
}

/// Dense matrices, `[experts, outputs, inputs]` or transposed.
package struct DenseExperts: ExpertWeight {
    package let parameter: Parameter
    package let isTransposed: Bool

    package init(_ tensor: Tensor, isTransposed: Bool) {
        (parameter, self.isTransposed) = (Parameter(tensor), isTransposed)
    }

    package var experts: Int { parameter.tensor.dim(0) }
    package var outputs: Int { parameter.tensor.dim(isTransposed ? 2 : 1) }
    package var inputs: Int { parameter.tensor.dim(isTransposed ? 1 : 2) }
    package var parameters: [(key: String, parameter: Parameter)] { [("", parameter)] }
    package var matrices: ExpertMatrices {
        ExpertMatrices(.dense(parameter.tensor, isTransposed: isTransposed), experts: experts)
    }
    package func dense(as type: DType) -> Tensor {
        (isTransposed ? parameter.tensor.transposed() : parameter.tensor).to(type)
    }
    package var formatName: String { WeightFormat.name(of: parameter.tensor.dtype) }
    package var precision: WeightPrecision { .full }
    package func replacing(with dense: Tensor) -> any ExpertWeight {
        let stored = (isTransposed ? dense.transposed() : dense).to(parameter.tensor.dtype)
        return DenseExperts(stored.contiguous(), isTransposed: isTransposed)
    }
}
