import CTorch
import Foundation
import PEFTSupport

/// A libtorch tensor: a multi-dimensional array with a dtype and a device, and a node in the autograd graph.
///
/// A tensor is a reference: copies of the value share elements, as in PyTorch. It isn't `Sendable`; training and
/// generation each run on one thread.
///
/// Operations don't throw, so that a model reads like its paper. Within ``withTorchErrors(_:)`` the first failed one,
/// such as a matmul of mismatched shapes or an allocation without enough memory, becomes the error that it throws; what
/// failed returns an empty tensor until then. Outside such a scope a failed operation is a programming error and ends
/// the process. All functions of this package that throw open the scope for what they call, which includes the code of
/// methods of your own: attaching, training, generating, merging, saving and evaluating throw. Open it yourself for
/// operations of your own code whose shapes come from a user or a file.
public final class Tensor {
    /// Valid while this object exists: pass it to C only from a parameter or a named variable, never from a
    /// temporary, which Swift may release before the call.
    let pointer: OpaquePointer

    init(owning pointer: OpaquePointer) { self.pointer = pointer }
    deinit { ct_release(pointer) }

    // MARK: Creating

    /// A tensor of the given elements, in row-major order.
    public convenience init<Element: TensorElement>(_ elements: [Element], shape: [Int]? = nil, device: Device = .cpu)
    {
        let shape = shape ?? [elements.count]
        if shape.reduce(1, *) != elements.count {
            FailureLog.record("\(elements.count) elements don't match the shape \(shape)")
            self.init(owning: ct_undefined())
            return
        }
        let made = elements.withUnsafeBytes { bytes in
            withShape(shape) { ct_from_bytes(bytes.baseAddress, $0, $1, Element.dtype.raw) }
        }
        if device == .cpu || made == nil {
            if made == nil { FailureLog.record(String(cString: ct_last_error())) }
            self.init(owning: made ?? ct_undefined())
        } else {
            let moved = ct_to(made, Element.dtype.raw, device.raw, device.index)
            ct_release(made)
            if moved == nil { FailureLog.record(String(cString: ct_last_error())) }
            self.init(owning: moved ?? ct_undefined())
        }
    }

    /// A tensor of row-major elements in `bytes`; fails if their number doesn't match the shape.
    package convenience init(bytes: Data, shape: [Int], dtype: DType) {
        guard bytes.count == shape.reduce(1, *) * dtype.size else {
            FailureLog.record("\(bytes.count) bytes don't match the shape \(shape)")
            self.init(owning: ct_undefined())
            return
        }
        let made = bytes.withUnsafeBytes { buffer in
            withShape(shape) { ct_from_bytes(buffer.baseAddress, $0, $1, dtype.raw) }
        }
        if made == nil { FailureLog.record(String(cString: ct_last_error())) }
        self.init(owning: made ?? ct_undefined())
    }

    /// A tensor with uninitialized elements.
    public static func empty(_ shape: [Int], dtype: DType = .float32, device: Device = .cpu) -> Tensor {
        withShape(shape) { wrap(ct_empty($0, $1, dtype.raw, device.raw, device.index)) }
    }

    /// A tensor on the CPU whose row-major elements `body` initializes, as values of a type of the same size as
    /// `dtype`.
    static func filled<Number>(
        _ shape: [Int], dtype: DType, as _: Number.Type, _ body: (UnsafeMutablePointer<Number>) -> Void
    ) -> Tensor {
        let tensor = Tensor.empty(shape, dtype: dtype)
        guard MemoryLayout<Number>.size == dtype.size, tensor.count > 0, let data = ct_data(tensor.pointer) else {
            return tensor
        }
        body(data.assumingMemoryBound(to: Number.self))
        return tensor
    }

    /// A tensor whose elements all have one value.
    public static func full(_ shape: [Int], _ value: Double, dtype: DType = .float32, device: Device = .cpu) -> Tensor
    {
        withShape(shape) { wrap(ct_full($0, $1, value, dtype.raw, device.raw, device.index)) }
    }

    /// A tensor of zeros.
    public static func zeros(_ shape: [Int], dtype: DType = .float32, device: Device = .cpu) -> Tensor {
        full(shape, 0, dtype: dtype, device: device)
    }

    /// A tensor of ones.
    public static func ones(_ shape: [Int], dtype: DType = .float32, device: Device = .cpu) -> Tensor {
        full(shape, 1, dtype: dtype, device: device)
    }

    /// Zeros with another tensor's shape, dtype and device.
    public static func zeros(like other: Tensor) -> Tensor {
        zeros(other.shape, dtype: other.dtype, device: other.device)
    }

    /// start, start + 1, …, end − 1 as int64.
    public static func arange(_ start: Int = 0, _ end: Int, device: Device = .cpu) -> Tensor {
        wrap(ct_arange(Int64(start), Int64(end), CT_INT64, device.raw, device.index))
    }

    // MARK: Properties

    /// Number of axes.
    public var rank: Int { Int(ct_rank(pointer)) }
    /// Size of each axis.
    public var shape: [Int] { (0..<ct_rank(pointer)).map { Int(ct_dim(pointer, $0)) } }
    /// Size of one axis; negative axes count from the last. 0 for an axis that doesn't exist.
    public func dim(_ axis: Int) -> Int { Int(ct_dim(pointer, Int32(axis))) }
    /// Number of elements.
    public var count: Int { Int(ct_count(pointer)) }
    package var byteCount: Int { count * dtype.size }
    /// Type of the elements.
    public var dtype: DType { DType(raw: ct_dtype(pointer)) ?? .float32 }
    /// Where the elements are.
    public var device: Device { Device(raw: ct_device(pointer), index: ct_device_index(pointer)) }
    package var isContiguous: Bool { ct_is_contiguous(pointer) }

    // MARK: Reading

    /// The only element.
    public func item() -> Double {
        var ok = false
        let value = ct_item(pointer, &ok)
        check(ok ? 0 : 1)
        return value
    }

    /// All elements in row-major order, converted to `Element`.
    public func array<Element: TensorElement>(_: Element.Type = Element.self) -> [Element] {
        let host = detached().to(Element.dtype).to(.cpu).contiguous()
        return withExtendedLifetime(host) {
            guard let data = ct_data(host.pointer) else { return [] }
            return Array(UnsafeBufferPointer(start: data.assumingMemoryBound(to: Element.self), count: host.count))
        }
    }

    /// Calls `body` with the bytes of the row-major elements on the CPU.
    package func withBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
        let host = detached().to(.cpu).contiguous()
        return try withExtendedLifetime(host) {
            try body(UnsafeRawBufferPointer(start: ct_data(host.pointer), count: host.byteCount))
        }
    }

    /// Whether both have the same dtype, shape and bits.
    package func isIdentical(to other: Tensor) -> Bool { ct_same_bits(pointer, other.pointer) }

    // MARK: Converting and copying

    /// Converts to a dtype; returns self if it already has it.
    public func to(_ dtype: DType) -> Tensor {
        if dtype == self.dtype { return self }
        return wrap(ct_to(pointer, dtype.raw, device.raw, device.index))
    }

    /// The values of 8-bit floats (e4m3, without infinities) whose codes are the elements, uint8 -> float32.
    package var float8Values: Tensor { wrap(ct_float8_values(pointer)) }

    /// Copies to a device; returns self if it is already there.
    public func to(_ device: Device) -> Tensor {
        if device == self.device { return self }
        return wrap(ct_to(pointer, dtype.raw, device.raw, device.index))
    }

    /// A contiguous tensor in row-major order; self if it already is.
    public func contiguous() -> Tensor { wrap(ct_contiguous(pointer)) }
    /// A copy with elements of its own.
    public func clone() -> Tensor { wrap(ct_clone(pointer)) }

    /// Overwrites the elements with those of `source`, which has the same shape, without autograd.
    public func copy(from source: Tensor) { check(ct_copy_into(pointer, source.pointer)) }

    /// Grows whenever an operation of libtorch writes into the elements. Kernels of our own, such as optimizers', don't count.
    package var writeCount: Int { Int(ct_write_count(pointer)) }

    // MARK: Gradients

    /// Whether autograd records operations on this tensor.
    public var requiresGrad: Bool {
        get { ct_requires_grad(pointer) }
        set { check(ct_set_requires_grad(pointer, newValue)) }
    }

    /// The gradient of a leaf after ``backward()``.
    public var grad: Tensor? {
        get { ct_grad(pointer).map(Tensor.init(owning:)) }
        set { check(ct_set_grad(pointer, newValue?.pointer)) }
    }

    /// A view of the same elements, detached from the autograd graph.
    public func detached() -> Tensor { wrap(ct_detach(pointer)) }

    /// Accumulates the gradient of this scalar in every leaf that it depends on.
    public func backward() { check(ct_backward(pointer)) }
}

/// A Swift number type that a tensor can contain.
public protocol TensorElement {
    /// The dtype of tensors of such numbers.
    static var dtype: DType { get }
}
extension Float: TensorElement {
    /// float32, of the same bits.
    public static var dtype: DType { .float32 }
}
extension Double: TensorElement {
    /// float64, of the same bits.
    public static var dtype: DType { .float64 }
}
extension Int: TensorElement {
    /// int64, of the same bits.
    public static var dtype: DType { .int64 }
}
extension Int64: TensorElement {
    /// int64, of the same bits.
    public static var dtype: DType { .int64 }
}
extension Int32: TensorElement {
    /// int32, of the same bits.
    public static var dtype: DType { .int32 }
}
extension UInt8: TensorElement {
    /// uint8, of the same bits.
    public static var dtype: DType { .uint8 }
}
extension Bool: TensorElement {
    /// bool, of the same bits.
    public static var dtype: DType { .bool }
}

func withShape<Result>(_ shape: [Int], _ body: (UnsafePointer<Int64>?, Int32) -> Result) -> Result {
    shape.map(Int64.init).withUnsafeBufferPointer { body($0.baseAddress, Int32($0.count)) }
}

/// Runs `body` without autograd. Gradient mode belongs to the thread, hence the synchronous closure.
public func withoutGradients<Result>(_ body: () throws -> Result) rethrows -> Result {
    try withGradients(false, body)
}

/// Whether autograd is enabled on this thread.
package var areGradientsEnabled: Bool { ct_grad_mode_is_enabled() }

/// Runs `body` with autograd enabled or disabled.
package func withGradients<Result>(_ enabled: Bool, _ body: () throws -> Result) rethrows -> Result {
    let mode = ct_grad_mode_enter(enabled)
    defer { ct_grad_mode_leave(mode) }
    return try body()
}

extension Tensor: CustomStringConvertible {
    /// Shape, dtype and device; no elements.
    public var description: String { "Tensor(\(shape), \(dtype.rawValue), \(device))" }
}
