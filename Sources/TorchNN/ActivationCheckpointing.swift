import PEFTSupport
import Torch

/// Activation checkpointing (Chen et al. 2016): each layer saves only its input, and its saved tensors are recomputed
/// in the backward pass.
///
/// It is enabled only within ``ActivationCheckpointing/run(_:_:)``. Losses and gradients are bitwise identical to
/// those without it. Layers that need no gradients are computed once. The adapters must not change between the
/// forward and the backward pass.
package enum ActivationCheckpointing {
    package enum Mode: Sendable {
        case off, keepingInputs
        /// Inputs are offloaded to files, or from a GPU to host memory.
        case offloading
    }

    @TaskLocal fileprivate static var mode = Mode.off

    /// Runs a forward pass with checkpointing in that mode.
    package static func run<Result>(_ mode: Mode, _ body: () throws -> Result) rethrows -> Result {
        try $mode.withValue(mode, operation: body)
    }
}

/// Applies a layer to `x` as `body` says, with the current checkpointing mode; `body` may run twice.
package func checkpointed<Layer: StackedLayer>(
    _ x: Tensor, _ layer: Layer, _ body: @escaping (Layer, Tensor) -> Tensor
) -> Tensor {
    layer.gathered { checkpointed(x) { body(layer, $0) } }
}

private func checkpointed(_ x: Tensor, _ layer: @escaping (Tensor) -> Tensor) -> Tensor {
    if let probe = LayerProbe.current { return probe.note(x, layer(x)) }
    let mode = ActivationCheckpointing.mode
    guard mode != .off else { return layer(x) }
    let (masks, rows, texts) = (DropoutScope.captured(), RowRouting.captured(), InvocationScope.captured())
    let needsGradient = x.requiresGrad
    let back = mode == .offloading ? offloaded(x) : kept(x)
    return Recomputation.run {
        layer(x)
    } again: {
        let input = back()
        input.requiresGrad = needsGradient
        masks { rows { texts { _ = layer(input) } } }
    }
}

/// Saves x and returns a closure that restores it, detached from the autograd graph.
private func kept(_ x: Tensor) -> () -> Tensor {
    let elements = x.detached()
    return { elements.detached() }
}

/// Offloads x and returns a closure that restores it.
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
