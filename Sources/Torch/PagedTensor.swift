import CTorch
import Foundation
import PEFTSupport
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// Tensors in unnamed temporary files, which the system pages in and out of memory as space allows.
///
/// The files are in the folder for temporary files (`TMPDIR`), and are deleted with the tensors or the process. A
/// memory-backed folder (tmpfs) saves no memory.
package enum PagedTensor {
    /// Zeros on the CPU, with their disk space reserved.
    /// - Throws: ``PEFTError`` if the file can't be created or doesn't fit.
    package static func zeros(_ shape: [Int], dtype: DType = .float32) throws -> Tensor {
        let count = shape.reduce(1, *) * dtype.size
        guard count > 0 else { return .zeros(shape, dtype: dtype) }
        let file = try UnnamedFile(count)
        let keeper = Unmanaged.passRetained(file)
        return withShape(shape) {
            wrap(
                ct_from_memory(
                    file.start, $0, $1, dtype.raw,
                    { context in
                        guard let context else { return }
                        Unmanaged<UnnamedFile>.fromOpaque(context).release()
                    }, keeper.toOpaque()))
        }
    }

    /// Start addresses of paged tensors: for other memory the `madvise` call below would discard data.
    private static let starts = Mutex<Set<Int>>([])

    /// Releases a paged tensor's memory; the next use reads it from the file. Other tensors are unaffected.
    package static func release(_ tensor: Tensor) {
        guard tensor.device == .cpu, tensor.count > 0, let data = ct_data(tensor.pointer) else { return }
        guard starts.withLock({ $0.contains(Int(bitPattern: data)) }) else { return }
        // Pages of a shared mapping keep what was written.
        let page = Int(getpagesize())
        madvise(data, (tensor.byteCount + page - 1) / page * page, MADV_DONTNEED)
    }

    /// A shared mapping of an unlinked temporary file.
    private final class UnnamedFile: @unchecked Sendable {
        let start: UnsafeMutableRawPointer
        let count: Int

        init(_ count: Int) throws {
            let folder = FileManager.default.temporaryDirectory
            var name = Array(folder.appendingPathComponent("peft-pages-XXXXXX").path.utf8CString)
            let descriptor = mkstemp(&name)
            guard descriptor >= 0 else {
                throw PEFTError(
                    "can't create a file in \(folder.path): \(String(cString: strerror(errno)))",
                    remedy: "set TMPDIR to a writable folder")
            }
            defer { close(descriptor) }
            unlink(name)
            // Reserved now, because writing to a mapping without disk space ends the process.
            let status = Self.reserve(descriptor, count)
            guard status == 0 else {
                throw PEFTError(
                    "can't reserve \(count) bytes in \(folder.path): \(String(cString: strerror(status)))",
                    remedy: "set TMPDIR to a folder with more space")
            }
            let address = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
            guard let address, address != MAP_FAILED else {
                throw PEFTError("can't map \(count) bytes: \(String(cString: strerror(errno)))")
            }
            (start, self.count) = (address, count)
            _ = PagedTensor.starts.withLock { $0.insert(Int(bitPattern: address)) }
        }

        deinit {
            _ = PagedTensor.starts.withLock { $0.remove(Int(bitPattern: start)) }
            munmap(start, count)
        }

        private static func reserve(_ descriptor: Int32, _ count: Int) -> Int32 {
            #if os(Linux)
                return posix_fallocate(descriptor, 0, count)
            #else
                return ftruncate(descriptor, off_t(count)) == 0 ? 0 : errno
            #endif
        }
    }
}
