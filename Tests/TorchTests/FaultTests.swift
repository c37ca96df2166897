#if compiler(>=6.2) && os(Linux)
    import Foundation
    import Testing

    @testable import Torch

    /// A mapped file that becomes shorter ends the program with a line, not with a signal.
    @Suite struct FaultTests {
        @Test func truncatedFilesAreNamed() async throws {
            let result = await #expect(processExitsWith: .exitCode(1), observing: [\.standardErrorContent]) {
                Runtime.reportTruncatedFiles()
                let url = FileManager.default.temporaryDirectory.appendingPathComponent("peft-\(getpid()).weights")
                try Data(count: 65_536).write(to: url)
                let file = try MappedFile(url)
                truncate(url.path, 0)
                try FileManager.default.removeItem(at: url)
                exit(Int32(file.bytes[40_000]) + 2)
            }
            let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
            #expect(text.contains("error: ") && text.contains(".weights"))
            #expect(text.contains("was truncated while in use"))
        }
    }
#endif
