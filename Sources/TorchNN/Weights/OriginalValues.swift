import Torch

/// The values of a weight before quantization, in a file that still exists.
package struct OriginalValues {
    /// Reads `[outputs, inputs]` as fp32.
    package let read: () throws -> Tensor
    /// Releases the memory of what was read.
    package let forget: () -> Void

    package init(read: @escaping () throws -> Tensor, forget: @escaping () -> Void) {
        (self.read, self.forget) = (read, forget)
    }
}
