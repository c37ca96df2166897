import Foundation
import PEFTSupport

/// Reader of `numpy.save` arrays (`.npy`): magic bytes, a header that is a Python dictionary, and the values.
package enum NumpyFile {
    private static let magic: [UInt8] = [0x93] + Array("NUMPY".utf8)

    /// Reads an array as fp32, in row-major order.
    /// - Throws: ``PEFTError`` if the file is damaged or isn't float16, float32 or float64.
    package static func read(_ url: URL) throws -> Tensor {
        let data: Data
        do { data = try Data(contentsOf: url, options: .mappedIfSafe) } catch {
            throw PEFTError("can't read \(url.path)", remedy: "check that the file exists and is readable")
        }
        func damaged(_ what: String) -> PEFTError {
            PEFTError("\(url.path) is not a NumPy array: \(what)", remedy: "save it again with numpy.save")
        }
        let bytes = [UInt8](data.prefix(12))
        guard bytes.count >= 10, bytes.starts(with: magic) else { throw damaged("its magic bytes are wrong") }
        let isLong = bytes[6] > 1
        guard !isLong || bytes.count == 12 else { throw damaged("it is truncated") }
        let size = (0..<(isLong ? 4 : 2)).reduce(0) { $0 | Int(bytes[8 + $1]) << (8 * $1) }
        let start = (isLong ? 12 : 10) + size
        guard start <= data.count else { throw damaged("it is truncated") }
        let header = String(
            decoding: data[(data.startIndex + start - size)..<(data.startIndex + start)], as: UTF8.self)
        guard let type = header.firstMatch(of: /'descr'\s*:\s*'([^']*)'/)?.1,
            let order = header.firstMatch(of: /'fortran_order'\s*:\s*(True|False)/)?.1,
            let list = header.firstMatch(of: /'shape'\s*:\s*\(([0-9, ]*)\)/)?.1
        else { throw damaged("its header can't be read") }
        let sizes = list.split(separator: ",").map { Int($0.filter { $0 != " " }) }
        let shape = sizes.compactMap { $0 }
        guard shape.count == sizes.count, let count = product(shape) else { throw damaged("its shape is (\(list))") }
        let types: [String: (type: DType, width: Int)] = [
            "<f2": (.float16, 2), "<f4": (.float32, 4), "<f8": (.float64, 8),
        ]
        guard let (dtype, width) = types[String(type)] else {
            throw PEFTError(
                "\(url.path) has dtype '\(type)'",
                remedy: "save it as little-endian float16, float32 or float64")
        }
        guard data.count - start == count * width else {
            throw damaged(
                "its header declares \(count) values of \(width) bytes, but \(data.count - start) bytes follow")
        }
        let isTransposed = order == "True" && shape.count > 1
        guard !isTransposed || shape.count == 2 else {
            throw damaged("it is in Fortran order with \(shape.count) axes")
        }
        return try withTorchErrors {
            let stored = Tensor(
                bytes: Data(data.dropFirst(start)), shape: isTransposed ? Array(shape.reversed()) : shape,
                dtype: dtype)
            // In Fortran order, the values are the transposed array in row-major order.
            return (isTransposed ? stored.T.contiguous() : stored).to(.float32)
        }
    }

    private static func product(_ shape: [Int]) -> Int? {
        var count = 1
        for size in shape {
            let (next, overflows) = count.multipliedReportingOverflow(by: size)
            guard !overflows, next <= 1 << 40 else { return nil }
            count = next
        }
        return count
    }
}
