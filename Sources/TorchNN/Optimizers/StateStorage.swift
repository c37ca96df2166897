import PEFTSupport
import Torch

/// Where optimizer state is stored.
package enum StateStorage: Sendable {
    case memory
    /// In files that are paged in when a step needs them (``PagedTensor``), one parameter at a time.
    case file

    /// Zeros for the state of a tensor on `device`. If a file can't be created, the failure is reported.
    func zeros(_ shape: [Int], dtype: DType, device: Device) -> Tensor {
        guard self == .file else { return .zeros(shape, dtype: dtype, device: device) }
        // A plan only counts state that stays in memory.
        if device == .meta { return .empty([0], dtype: dtype, device: .meta) }
        do { return try PagedTensor.zeros(shape, dtype: dtype) } catch {
            reportFailure(error as? PEFTError ?? PEFTError("\(error)"))
            return .zeros(shape, dtype: dtype)
        }
    }

    func zeros(like tensor: Tensor) -> Tensor { zeros(tensor.shape, dtype: tensor.dtype, device: tensor.device) }

    /// Releases the memory of paged state after a step.
    func release(_ tensors: Tensor?...) {
        guard self == .file else { return }
        for tensor in tensors { if let tensor { PagedTensor.release(tensor) } }
    }
}
