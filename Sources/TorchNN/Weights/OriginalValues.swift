import Torch

/// The values of a weight before quantization, in a file that still exists.
public struct OriginalValues {
    /// Reads `[outputs, inputs]` as fp32.
    public let read: () throws -> Tensor
    /// Releases the memory of what was read.
    public let forget: () -> Void

    public init(read: @escaping () throws -> Tensor, forget: @escaping () -> Void) {
        (self.read, self.forget) = (read, forget)
    }
}
