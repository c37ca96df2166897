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

    /// Gives free blocks back to the system.
    public static func trimMemory() { ct_trim_memory() }

    /// Largest resident memory since the start or the last ``resetPeakMemory()``, in bytes; `nil` where the
    /// system doesn't tell.
    public static var peakMemory: Int? { processStatus("VmHWM:") }

    /// Resident memory now, in bytes; `nil` where the system doesn't tell.
    public static var residentMemory: Int? { processStatus("VmRSS:") }

    /// Makes ``peakMemory`` count from now.
    /// - Returns: whether the system can do that.
    @discardableResult
    public static func resetPeakMemory() -> Bool {
        let descriptor = open("/proc/self/clear_refs", O_WRONLY)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return write(descriptor, "5", 1) == 1
    }

    private static func processStatus(_ field: String) -> Int? {
        guard let status = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8) else { return nil }
        guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix(field) }) else { return nil }
        return line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) }.map { $0 * 1024 }
    }
}
