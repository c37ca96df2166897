import Foundation
import Testing

@testable import PEFTSupport

@Suite(.serialized) struct StandardStreamsTests {
    private func pipe() throws -> (reading: Int32, writing: Int32) {
        var ends: [Int32] = [0, 0]
        try #require(Foundation.pipe(&ends) == 0)
        return (ends[0], ends[1])
    }

    @Test func everythingArrives() throws {
        let (reading, writing) = try pipe()
        #expect(StandardStreams.write("héllo", to: writing) == nil)
        #expect(StandardStreams.write("", to: writing) == nil)
        close(writing)
        #expect(try StandardStreams.readToEnd(reading) == Data("héllo".utf8))
        close(reading)
    }

    /// The signal's default would end these tests.
    @Test func aBrokenPipeIsAnErrorAndNoSignal() throws {
        let (reading, writing) = try pipe()
        close(reading)
        #expect(StandardStreams.write("x", to: writing) == EPIPE)
        close(writing)
    }

    @Test func aFullPipeLosesProgressAlone() throws {
        let (reading, writing) = try pipe()
        defer {
            close(reading)
            close(writing)
        }
        _ = fcntl(writing, F_SETFL, O_NONBLOCK)
        let line = String(repeating: "x", count: 1000)
        var lost: Int32?
        for _ in 0..<2000 where lost == nil {
            lost = StandardStreams.write(line, to: writing, .milliseconds(0))
        }
        #expect(lost == EAGAIN)
        // A result waits for its reader, though the descriptor doesn't.
        let reader = Thread {
            var buffer = [UInt8](repeating: 0, count: 1 << 16)
            for _ in 0..<4 { _ = buffer.withUnsafeMutableBytes { read(reading, $0.baseAddress, $0.count) } }
        }
        reader.start()
        #expect(StandardStreams.write(String(repeating: "y", count: 100_000), to: writing) == nil)
    }

    @Test func fullAndClosedDescriptorsAreErrors() throws {
        let full = open("/dev/full", O_WRONLY)
        if full >= 0 {
            #expect(StandardStreams.write("x", to: full) == ENOSPC)
            close(full)
        }
        // Beyond any that is open.
        #expect(StandardStreams.write("x", to: 1_000_000) == EBADF)
        let error = try #require(throws: PEFTError.self) { try StandardStreams.readToEnd(1_000_000) }
        #expect(error.problem.contains("closed"))
        let folder = open("/", O_RDONLY)
        #expect(throws: PEFTError.self) { try StandardStreams.readToEnd(folder) }
        close(folder)
    }
}
