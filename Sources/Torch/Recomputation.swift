import CTorch
import PEFTSupport

/// Recomputation of a part of the forward pass in the backward pass, instead of saving its intermediate tensors (Chen
/// et al. 2016, Training deep nets with sublinear memory cost).
package enum Recomputation {
    /// Runs `first`; the tensors that its operations would save for the backward pass are recomputed by `again` on
    /// demand.
    ///
    /// `again` must run the same operations on the same values; the autocast state is restored. It may run on another
    /// thread. Gradients are bitwise identical to those without recomputation, as the graph is that of `first`.
    /// Without gradients nothing runs twice. Recomputed parts don't nest: an inner one is part of the outer.
    package static func run(_ first: () -> Tensor, again: @escaping () -> Void) -> Tensor {
        guard !ct_is_recomputed() else { return first() }
        let context = Unmanaged.passRetained(Second(again)).toOpaque()
        ct_recomputed_begin(
            { context in context.map { Unmanaged<Second>.fromOpaque($0).takeUnretainedValue().run() } ?? 0 },
            { context in context.map { Unmanaged<Second>.fromOpaque($0).release() } }, context)
        defer { ct_recomputed_end() }
        return first()
    }

    private final class Second {
        private let again: () -> Void

        init(_ again: @escaping () -> Void) { self.again = again }

        func run() -> Int32 {
            do {
                try withTorchErrors(again)
                return 0
            } catch {
                ct_set_last_error("\(error)")
                return 1
            }
        }
    }
}
