import CTorch
import Foundation
import PEFTSupport

/// A private mapping of a whole file, unmapped when its last tensor is released.
final class MappedFile: @unchecked Sendable {
    let start: UnsafeMutableRawPointer
    let count: Int
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: start, count: count) }

    init(_ url: URL) throws {
        let descriptor = open(url.path, O_RDONLY)
        guard descriptor >= 0 else {
            throw PEFTError("can't read \(url.path)", remedy: "check that the file exists and is readable")
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_size > 0 else {
            throw PEFTError("\(url.path) is empty", remedy: "download the file again")
        }
        // Private and writable: training may update weights in place, page by page, without changing the file.
        let address = mmap(nil, Int(status.st_size), PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0)
        guard let address, address != MAP_FAILED else {
            throw PEFTError("can't map \(url.path): \(String(cString: strerror(errno)))")
        }
        start = address
        count = Int(status.st_size)
    }

    deinit { munmap(start, count) }

    /// Releases whole pages within a range.
    func forget(_ range: Range<Int>) {
        let page = Int(getpagesize())
        let first = (range.lowerBound + page - 1) / page * page
        let end = range.upperBound / page * page
        if end > first { madvise(start + first, end - first, MADV_DONTNEED) }
    }

    /// A row-major tensor over the bytes from `offset`, which the caller has validated. Writing to it changes only
    /// this process's view, never the file.
    func tensor(at offset: Int, shape: [Int], dtype: DType) -> Tensor {
        let keeper = Unmanaged.passRetained(self)
        return withShape(shape) {
            wrap(
                ct_from_memory(
                    start + offset, $0, $1, dtype.raw,
                    { context in
                        guard let context else { return }
                        Unmanaged<MappedFile>.fromOpaque(context).release()
                    }, keeper.toOpaque()))
        }
    }
}
