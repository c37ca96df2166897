import Support
import Torch

/// Where the state of an optimizer lies.
public enum StateStorage: Sendable {
    case memory
    /// In files that are paged in where a step needs them (``PagedTensor``), a parameter at a time.
    case file

    /// Zeros for state of a tensor on `device`. Where a file can't be made the failure is reported.
    func zeros(_ shape: [Int], dtype: DType, device: Device) -> Tensor {
        guard self == .file else { return .zeros(shape, dtype: dtype, device: device) }
        // A plan counts what stays in memory.
        if device == .meta { return .empty([0], dtype: dtype, device: .meta) }
        do { return try PagedTensor.zeros(shape, dtype: dtype) } catch {
            reportFailure(error as? PEFTError ?? PEFTError("\(error)"))
            return .zeros(shape, dtype: dtype)
        }
    }

    func zeros(like tensor: Tensor) -> Tensor { zeros(tensor.shape, dtype: tensor.dtype, device: tensor.device) }

    /// Takes state out of memory that a step is done with.
    func release(_ tensors: Tensor?...) {
        guard self == .file else { return }
        for tensor in tensors { if let tensor { PagedTensor.release(tensor) } }
    }
}
