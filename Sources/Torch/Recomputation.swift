import CTorch
import Support

/// Parts of a forward pass whose intermediate results are not kept but computed again in the backward pass (Chen et al.
/// 2016, Training deep nets with sublinear memory cost).
public enum Recomputation {
    /// Runs `first`; what its operations would keep for the backward pass is made by `again` when it is needed.
    ///
    /// `again` has to do the same operations on the same numbers, autocast aside, which is as it was. It may run on
    /// another thread. Gradients are the same bits as without, as the graph is that of `first`. Where no gradient is
    /// asked for nothing runs twice. Parts don't nest: an inner one is a piece of the outer.
    public static func run(_ first: () -> Tensor, again: @escaping () -> Void) -> Tensor {
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
