import Foundation

/// Ends the process without destroying global objects. libtorch unregisters its operators one by one when the process
/// exits, a third of the time of a short command, and threads that still run would see them go. All files are closed by
/// now; only C streams may hold text.
func endProcess(_ code: Int32) -> Never {
    fflush(nil)
    _exit(code)
}
