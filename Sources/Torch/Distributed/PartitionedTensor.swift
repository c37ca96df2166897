import CTorch
import PEFTSupport

/// A tensor of which each of N processes keeps 1/N of the stored bytes, whatever they encode. While they are gathered, it
/// is used as any other; before, access to its values is an error. All ranks gather the same tensors in the same order.
package final class PartitionedTensor {
    private let pointer: OpaquePointer
    private let group: ProcessGroup
    /// The tensor itself, whose shape and dtype stay.
    package let tensor: Tensor
    /// Its first elements in row-major order, at most eight.
    package let firstValues: [Float]

    /// Releases the bytes that other ranks keep.
    /// - Throws: ``PEFTError`` with libtorch's message.
    package init(_ tensor: Tensor, _ group: ProcessGroup) throws {
        firstValues = try withTorchErrors { tensor.firstValues }
        let made = ct_partition_make(group.pointer, tensor.pointer)
        guard let made else { throw lastError() }
        (pointer, self.group, self.tensor) = (made, group, tensor)
    }

    deinit { ct_partition_release(pointer) }

    /// Bytes of all processes.
    package var byteCount: Int { Int(ct_partition_bytes(pointer)) }
    /// Bytes that this process keeps.
    package var ownByteCount: Int { Int(ct_partition_own_bytes(pointer)) }

    /// Starts to gather, unless the bytes are here or on their way.
    package func start() throws { try collecting(ct_partition_start(pointer)) }

    /// Waits until the bytes are here.
    /// - Throws: ``CollectiveFailure`` if a rank is gone.
    package func wait() throws { try collecting(ct_partition_wait(pointer)) }

    /// Releases the bytes that other ranks keep.
    package func drop() { ct_partition_drop(pointer) }
}

extension Tensor {
    /// The first elements in row-major order, at most eight.
    package var firstValues: [Float] {
        guard count > 0 else { return [] }
        return withoutGradients {
            detached().reshaped(-1).narrowed(axis: 0, 0..<min(8, count)).to(.float32).array(Float.self)
        }
    }

    /// Calls `body` in the backward pass when this tensor's gradient is known, before the operation that computed the
    /// tensor is differentiated. What `body` throws ends the backward pass.
    package func onGradient(_ body: @escaping () throws -> Void) {
        let context = Unmanaged.passRetained(GradientCallback(body)).toOpaque()
        check(
            ct_on_gradient(
                pointer, { $0.map { Unmanaged<GradientCallback>.fromOpaque($0).takeUnretainedValue().run() } ?? 0 },
                { $0.map { Unmanaged<GradientCallback>.fromOpaque($0).release() } }, context))
    }
}

private final class GradientCallback {
    private let body: () throws -> Void

    init(_ body: @escaping () throws -> Void) { self.body = body }

    func run() -> Int32 {
        do {
            try withTorchErrors(body)
            return 0
        } catch {
            ct_set_last_error("\(error)")
            return 1
        }
    }
}
