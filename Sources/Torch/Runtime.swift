import CTorch
import Foundation

/// The process: threads, memory, libtorch's version.
public enum Runtime {
    public static var libtorchVersion: String { String(cString: ct_version()) }

    /// Threads that one tensor operation may use.
    public static var threads: Int {
        get { Int(ct_threads()) }
        set { ct_set_threads(Int32(clamping: newValue)) }
    }

    /// Lets the allocator keep freed blocks: training frees and makes the same large temporaries at every
    /// step, and each fresh block from the system is faulted in page by page.
    public static func keepFreedMemory() { ct_keep_freed_memory() }

    /// Ends the program with status 1 and a line that names the file where a mapped file turns out shorter than it was, which
    /// is a bare SIGBUS otherwise. It installs a signal handler, so only programs call it.
    public static func reportTruncatedFiles() { ct_report_truncated_files() }

    /// Gives free blocks back to the system.
    public static func trimMemory() { ct_trim_memory() }

    /// The library that large fp32 products on the CPU go through.
    public static var blas: String {
        let other = String(cString: ct_blas_name())
        return other.isEmpty ? "libtorch's" : other
    }

    /// Whether products may go through another library than libtorch's operations, for comparisons.
    public static func allowOtherBLAS(_ allowed: Bool) { ct_allow_other_blas(allowed) }

    /// Runs `body` without 512-bit vectors where this thread asks for products, for tests and measurements of the others.
    static func withoutWideVectors<Result>(_ body: () throws -> Result) rethrows -> Result {
        ct_use_wide_vectors(false)
        defer { ct_use_wide_vectors(true) }
        return try body()
    }

    /// Bytes that tensors take on a GPU now, and the most they took; `nil` for the CPU, where the process's memory
    /// says it.
    public static func deviceMemory(_ device: Device) -> (now: Int, peak: Int)? {
        guard device != .cpu, device != .meta else { return nil }
        var (now, peak): (Int64, Int64) = (0, 0)
        guard ct_device_memory(device.raw, device.index, &now, &peak) == 0 else { return nil }
        return (Int(now), Int(peak))
    }

    /// Largest resident memory since the start or the last ``resetPeakMemory()``, in bytes; `nil` where the
    /// system doesn't tell.
    public static var peakMemory: Int? { processMemory?.peak }

    /// Resident memory now, in bytes; `nil` where the system doesn't tell.
    public static var residentMemory: Int? { processMemory?.now }

    /// Makes ``peakMemory`` count from now (Linux).
    /// - Returns: whether the system can do that.
    @discardableResult
    public static func resetPeakMemory() -> Bool {
        let descriptor = open("/proc/self/clear_refs", O_WRONLY)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return write(descriptor, "5", 1) == 1
    }

    private static var processMemory: (now: Int, peak: Int)? {
        var (now, peak): (Int64, Int64) = (0, 0)
        return ct_process_memory(&now, &peak) == 0 ? (Int(now), Int(peak)) : nil
    }

    /// What the system calls this machine's processor; `nil` where it doesn't tell.
    public static var processor: String? {
        var name = [CChar](repeating: 0, count: 256)
        guard ct_processor_name(&name, name.count) == 0 else { return nil }
        return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}
