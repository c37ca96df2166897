import CTorch
import Foundation

/// Process-wide settings: threads and memory.
public enum Runtime {
    /// Maximum number of threads of a tensor operation.
    public static var threads: Int {
        get { Int(ct_threads()) }
        set { ct_set_threads(Int32(clamping: newValue)) }
    }

    /// Lets the allocator keep freed blocks: training reallocates the same large temporaries at every step, and each
    /// fresh block from the system is faulted in page by page.
    package static func keepFreedMemory() { ct_keep_freed_memory() }

    /// If a mapped file turns out to have been truncated, exits with status 1 and a message that names the file,
    /// instead of a bare SIGBUS. It installs a signal handler, so only programs call it.
    package static func reportTruncatedFiles() { ct_report_truncated_files() }

    /// Returns free blocks to the system.
    package static func trimMemory() { ct_trim_memory() }

    /// The version of libtorch.
    package static var libtorch: String { String(cString: ct_torch_version()) }

    /// The BLAS library that large fp32 GEMMs on the CPU use.
    package static var blas: String {
        let other = String(cString: ct_blas_name())
        return other.isEmpty ? "libtorch's" : other
    }

    /// Runs `body` with or without a BLAS library other than libtorch's in this thread's matmuls, to test and measure both.
    static func withOtherBLAS<Result>(_ isAllowed: Bool, _ body: () throws -> Result) rethrows -> Result {
        ct_allow_other_blas(isAllowed)
        defer { ct_allow_other_blas(true) }
        return try body()
    }

    /// Runs `body` without 512-bit vectors in this thread's matmuls, to test and measure the other kernels.
    static func withoutWideVectors<Result>(_ body: () throws -> Result) rethrows -> Result {
        ct_use_wide_vectors(false)
        defer { ct_use_wide_vectors(true) }
        return try body()
    }

    /// Bytes allocated by tensors on a GPU: now and at the peak; `nil` for the CPU, where process memory shows it.
    package static func deviceMemory(_ device: Device) -> (now: Int, peak: Int)? {
        guard device != .cpu, device != .meta else { return nil }
        var (now, peak): (Int64, Int64) = (0, 0)
        guard ct_device_memory(device.raw, device.index, &now, &peak) == 0 else { return nil }
        return (Int(now), Int(peak))
    }

    /// Peak resident memory since the start or the last ``resetPeakMemory()``, in bytes; `nil` if the system doesn't
    /// report it.
    package static var peakMemory: Int? { processMemory?.peak }

    /// Resident memory, in bytes; `nil` if the system doesn't report it.
    package static var residentMemory: Int? { processMemory?.now }

    /// Resets ``peakMemory`` (Linux only).
    /// - Returns: whether the system supports it.
    @discardableResult
    package static func resetPeakMemory() -> Bool {
        let descriptor = open("/proc/self/clear_refs", O_WRONLY)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return write(descriptor, "5", 1) == 1
    }

    private static var processMemory: (now: Int, peak: Int)? {
        var (now, peak): (Int64, Int64) = (0, 0)
        return ct_process_memory(&now, &peak) == 0 ? (Int(now), Int(peak)) : nil
    }

    /// The processor's name; `nil` if the system doesn't report it.
    package static var processor: String? {
        var name = [CChar](repeating: 0, count: 256)
        guard ct_processor_name(&name, name.count) == 0 else { return nil }
        return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}
