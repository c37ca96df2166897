import Support
import Torch

/// Gradient checkpointing (Chen et al. 2016): each layer of a model keeps its input alone, and what its backward pass
/// needs is computed again when that pass reaches it.
///
/// It is on within ``ActivationCheckpointing/run(_:_:)`` and nowhere else. Losses and gradients are the same bits as
/// without. Layers whose gradients nobody asks for are computed once. The backward pass has to come while the adapters
/// are where they were.
public enum ActivationCheckpointing {
    public enum Mode: Sendable {
        case off, keepingInputs
        /// The inputs wait in files, or a GPU's in the computer's memory.
        case offloading
    }

    @TaskLocal fileprivate static var mode = Mode.off

    /// Runs a forward pass in that mode.
    public static func run<Result>(_ mode: Mode, _ body: () throws -> Result) rethrows -> Result {
        try $mode.withValue(mode, operation: body)
    }
}

/// What a layer makes of `x`, kept as ``ActivationCheckpointing`` says; `layer` may run twice.
public func checkpointed(_ x: Tensor, _ layer: @escaping (Tensor) -> Tensor) -> Tensor {
    let mode = ActivationCheckpointing.mode
    guard mode != .off else { return layer(x) }
    let (masks, rows) = (DropoutScope.captured(), RowRouting.captured())
    let needsGradient = x.requiresGrad
    let back = mode == .offloading ? offloaded(x) : kept(x)
    return Recomputation.run {
        layer(x)
    } again: {
        let input = back()
        input.requiresGrad = needsGradient
        masks { rows { _ = layer(input) } }
    }
}

/// A way back to the elements of `x`, without the graph that they come from.
private func kept(_ x: Tensor) -> () -> Tensor {
    let elements = x.detached()
    return { elements.detached() }
}

/// The same while they aren't in the memory that is computed in.
private func offloaded(_ x: Tensor) -> () -> Tensor {
    let (shape, dtype, device) = (x.shape, x.dtype, x.device)
    switch device {
    case .meta: return { .empty(shape, dtype: dtype, device: .meta) }
    case .cpu:
        do {
            let pages = try PagedTensor.zeros(shape, dtype: dtype)
            pages.copy(from: x.detached())
            PagedTensor.release(pages)
            return { pages.detached() }
        } catch {
            reportFailure(error as? PEFTError ?? PEFTError("\(error)"))
            return kept(x)
        }
    default:
        let host = x.detached().to(.cpu)
        return { host.to(device) }
    }
}
