import CTorch
import Foundation
import Support
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// Tensors whose elements lie in files without a name, of which the system keeps in memory what it has room for.
///
/// The files are in the folder for temporary files (`TMPDIR`), and go with the tensors or the process. Where that folder
/// is a disk in memory nothing is gained.
public enum PagedTensor {
    /// Zeros, on the CPU; their room on the disk is reserved.
    /// - Throws: ``PEFTError`` where the file can't be made or doesn't fit.
    public static func zeros(_ shape: [Int], dtype: DType = .float32) throws -> Tensor {
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

    /// Where paged tensors begin: elsewhere the advice below would lose what is there.
    private static let starts = Mutex<Set<Int>>([])

    /// Takes a paged tensor's elements out of this process's memory; the next use reads them from the file. Of other tensors
    /// nothing happens.
    public static func release(_ tensor: Tensor) {
        guard tensor.device == .cpu, tensor.count > 0, let data = ct_data(tensor.pointer) else { return }
        guard starts.withLock({ $0.contains(Int(bitPattern: data)) }) else { return }
        // Pages of a shared mapping keep what was written.
        let page = Int(getpagesize())
        madvise(data, (tensor.byteCount + page - 1) / page * page, MADV_DONTNEED)
    }

    /// A shared mapping of a temporary file that has no name any more.
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
            // Reserved now: a write to a mapping that finds no room ends the process.
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
