import Torch

/// A weight matrix in some format, dense or quantized, as used by projections, embeddings and output layers.
///
/// A format answers for itself: nothing else asks for the type of a weight. To add one, add a file here; if users may
/// choose it, describe it there as a ``WeightFormat`` and list that in ``WeightFormat/families``.
package protocol LinearWeight {
    var outputs: Int { get }
    var inputs: Int { get }
    /// The stored tensors, named relative to the projection.
    var parameters: [(key: String, parameter: Parameter)] { get }

    // MARK: Computing

    /// x `[..., inputs]` -> x Wᵀ + bias `[..., outputs]`. Gradients flow to `x`, and to the weight if it is trained.
    func project(_ x: Tensor, bias: Tensor?) -> Tensor
    /// The matrix for fused inference kernels without autograd; `nil` if only ``project(_:bias:)`` supports it.
    var projectionMatrix: Projection.Matrix? { get }
    /// Embedding lookup: `ids` `[...]` (int64) -> `[..., inputs]`, in the weight's own dtype if it is dense, else in
    /// `type`.
    func rows(_ ids: Tensor, as type: DType) -> Tensor
    /// ``Functions/linearCrossEntropy(hidden:weight:bias:targets:scale:softcap:labelSmoothing:)`` with this matrix as
    /// the output layer. Gradients flow to `hidden`, to the bias, and to the weight if it is trained.
    func crossEntropy(
        hidden: Tensor, bias: Tensor?, targets: Tensor, scale: Double, softcap: Double?, labelSmoothing: Double
    ) -> Tensor
    /// The dequantized weight, `[outputs, inputs]`.
    func dense(as type: DType) -> Tensor
    /// The weight's own tensor `[outputs, inputs]`, to which gradients may flow; `nil` if it is stored otherwise.
    var denseTensor: Tensor? { get }

    // MARK: The format

    /// Name of the format in reports and errors, such as `nf4`.
    var formatName: String { get }
    /// How values are stored, which determines how they may be trained and merged into.
    var precision: WeightPrecision { get }
    /// Whether its tensor is stored as `[inputs, outputs]`.
    var isTransposed: Bool { get }
    /// The values of its 4-bit codes; `nil` for other formats.
    var blockCode: BlockCode? { get }
    /// The weight with its groups, if its zero points absorb a delta that is constant within a group (QA-LoRA), so that
    /// such an adapter merges into it as stored.
    var grouped: (any GroupedWeight)? { get }
    /// How files declare its tensors; `nil` if they need no declaration or can't be written.
    var declaration: WeightDeclaration? { get }

    // MARK: Other values

    /// A weight of the same format with other values `[outputs, inputs]`.
    func replacing(with dense: Tensor) throws -> any LinearWeight
    /// The weight to use once its values are loaded, if files store it in another layout.
    func loaded() -> any LinearWeight
    /// The values before quantization, if they can still be read.
    var original: OriginalValues? { get }
    /// The weight with its values before quantization; unchanged if the format doesn't need them.
    func with(original: OriginalValues) -> any LinearWeight
    /// A weight with the same tensors in parameters of its own, which can be replaced or trained separately; the
    /// weight itself if it can't be trained.
    func withOwnParameters() -> any LinearWeight
}

/// How the values of a weight are stored.
package enum WeightPrecision: Sendable {
    /// In the dtype that the model computes in: trained in place, and replaced without rounding.
    case full
    /// In 16 bits, upcast in matmuls: files may store it in any dtype, and only a copy of it may be trained.
    case half
    /// As codes with scales, whose tensors keep their dtypes whatever the model computes in: frozen.
    case quantized
}

/// The `quantization_config` of a folder that holds a weight, by its method in transformers.
package enum WeightDeclaration: Sendable, Equatable {
    /// `gptq`: packed integers in groups; the dtype of floating-point zero points, if it has any; and whether inputs
    /// are in groups by importance (`desc_act`).
    case gptq(GroupQuantization, zeroType: DType?, hasOrder: Bool)
    /// `bitsandbytes`: 4-bit blocks, or int8 by rows if `nil`.
    case bitsAndBytes(BlockQuantization?)
}

extension LinearWeight {
    package var projectionMatrix: Projection.Matrix? { nil }
    package func rows(_ ids: Tensor, as type: DType) -> Tensor { Functions.embedding(dense(as: type), ids) }
    package func crossEntropy(
        hidden: Tensor, bias: Tensor?, targets: Tensor, scale: Double, softcap: Double?, labelSmoothing: Double
    ) -> Tensor {
        Functions.linearCrossEntropy(
            hidden: hidden, weight: dense(as: hidden.dtype), bias: bias, targets: targets, scale: scale,
            softcap: softcap, labelSmoothing: labelSmoothing)
    }
    package var denseTensor: Tensor? { nil }
    package var precision: WeightPrecision { .quantized }
    package var isTransposed: Bool { false }
    package var blockCode: BlockCode? { nil }
    package var grouped: (any GroupedWeight)? { nil }
    package var declaration: WeightDeclaration? { nil }
    package func loaded() -> any LinearWeight { self }
    package var original: OriginalValues? { nil }
    package func with(original: OriginalValues) -> any LinearWeight { self }
    package func withOwnParameters() -> any LinearWeight { self }
}

// MARK: What follows from the format

extension LinearWeight {
    package var device: Device { parameters.first?.parameter.tensor.device ?? .cpu }
    /// Whether its tensors keep their stored dtypes, whatever dtype the model computes in.
    package var isQuantized: Bool { precision == .quantized }
    /// Whether merging a delta rounds the result to the weight's codes again, so that the weight is dequantized first.
    package var isRoundedByMerging: Bool { isQuantized && grouped == nil }
    /// A weight that keeps the present values if the parameter's are replaced.
    package func snapshot() -> any LinearWeight { denseTensor.map { DenseWeight($0) } ?? self }
}
