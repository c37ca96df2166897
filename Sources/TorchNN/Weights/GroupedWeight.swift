import Torch

/// A weight with a scale and a zero point for each output and group of inputs, W[o, i] = scale[g, o] · (q[i, o] −
/// zero[g, o]). A delta that is constant within a group only changes zero points (QA-LoRA, Xu et al. 2023).
package protocol GroupedWeight: LinearWeight {
    /// Inputs per group.
    var groupSize: Int { get }
    /// Whether input i is in group i / groupSize.
    var hasPlainOrder: Bool { get }
    /// `[groups, outputs]`
    var scales: Parameter { get }
    /// Floating-point zero points `[groups, outputs]`; `nil` if they are integers.
    var zeros: Parameter? { get }
    /// The zero points as floats, `[groups, outputs]`.
    func zeros(as type: DType) -> Tensor
    /// The same integers and scales with other zero points `[groups, outputs]`.
    ///
    /// - Parameter type: dtype to store the zero points in; with `nil` they are rounded to integers of the grid.
    func with(zeros: Tensor, as type: DType?) -> Self
}
