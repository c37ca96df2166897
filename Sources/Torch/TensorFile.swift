import Foundation

/// A tensor's entry in a file's directory.
package struct TensorEntry: Sendable {
    package let dtype: DType
    package let shape: [Int]
    package let byteCount: Int

    package init(dtype: DType, shape: [Int], byteCount: Int) {
        (self.dtype, self.shape, self.byteCount) = (dtype, shape, byteCount)
    }
}

/// A file of named tensors, which are read on request.
package protocol TensorFile: AnyObject {
    var url: URL { get }
    var entries: [String: TensorEntry] { get }

    /// Reads a tensor, as a view of the mapped file if possible.
    /// - Throws: ``PEFTError`` for an unknown name, with the nearest match.
    func tensor(_ name: String) throws -> Tensor
    /// Lets the system reclaim the memory of a tensor, which is read from the file again if needed. In-place changes
    /// to it are lost.
    func forget(_ name: String)
}

extension TensorFile {
    package func forget(_ name: String) {}

    /// All tensors by name.
    package func tensors() throws -> [String: Tensor] {
        try withTorchErrors { try Dictionary(uniqueKeysWithValues: entries.keys.map { ($0, try tensor($0)) }) }
    }
}
