// A tensor that reads all its bytes when it is made, in place of libtorch's: the readers of files are tested, not libtorch.
import CTorch
import PEFTSupport

package final class Tensor {
    let shape: [Int]
    let dtype: DType
    let sum: Int

    init(bytes: some Collection<UInt8>, shape: [Int], dtype: DType) {
        (self.shape, self.dtype) = (shape, dtype)
        sum = bytes.reduce(0) { $0 &+ Int($1) }
        precondition(bytes.count == shape.reduce(dtype.size, *), "\(bytes.count) bytes for \(shape) \(dtype)")
    }

    init(start: UnsafeRawPointer, shape: [Int], dtype: DType) {
        (self.shape, self.dtype) = (shape, dtype)
        let bytes = UnsafeRawBufferPointer(start: start, count: shape.reduce(dtype.size, *))
        sum = bytes.reduce(0) { $0 &+ Int($1) }
    }

    static func empty(_ shape: [Int], dtype: DType) -> Tensor { Tensor(bytes: [], shape: [0], dtype: dtype) }

    var byteCount: Int { 0 }
    func withBytes(_ body: (UnsafeRawBufferPointer) throws -> Void) rethrows {}
    func to(_ dtype: DType) -> Tensor { self }
    var T: Tensor { self }
    func contiguous() -> Tensor { self }
}

enum PagedTensor { static func release(_ tensor: Tensor) {} }

func withTorchErrors<Result>(_ body: () throws -> Result) throws -> Result { try body() }

func withShape(_ shape: [Int], _ body: ([Int], Int) -> Tensor) -> Tensor { body(shape, shape.count) }

func wrap(_ tensor: Tensor) -> Tensor { tensor }

/// The bytes are read at once, and the memory is released.
func ct_from_memory(
    _ start: UnsafeMutableRawPointer, _ shape: [Int], _ axes: Int, _ dtype: CTDType,
    _ release: (UnsafeMutableRawPointer?) -> Void, _ context: UnsafeMutableRawPointer
) -> Tensor {
    let tensor = Tensor(start: start, shape: shape, dtype: DType(raw: dtype) ?? .uint8)
    release(context)
    return tensor
}
