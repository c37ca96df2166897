import Foundation

/// What a file's directory says of one tensor.
public struct TensorEntry: Sendable {
    public let dtype: DType
    public let shape: [Int]
    public let byteCount: Int

    public init(dtype: DType, shape: [Int], byteCount: Int) {
        (self.dtype, self.shape, self.byteCount) = (dtype, shape, byteCount)
    }
}

/// A file of named tensors, which are read when they are asked for.
public protocol TensorFile: AnyObject {
    var url: URL { get }
    var entries: [String: TensorEntry] { get }

    /// The tensor, over the file's own bytes where they lie as a tensor's do.
    /// - Throws: ``PEFTError`` naming the nearest tensor if there is none of that name.
    func tensor(_ name: String) throws -> Tensor
    /// Lets the system take back the memory of a tensor's bytes, which are read from the file again if need be. What was
    /// written to them in memory is lost.
    func forget(_ name: String)
}

extension TensorFile {
    public func forget(_ name: String) {}

    /// All tensors by name.
    public func tensors() throws -> [String: Tensor] {
        try withTorchErrors { try Dictionary(uniqueKeysWithValues: entries.keys.map { ($0, try tensor($0)) }) }
    }
}
