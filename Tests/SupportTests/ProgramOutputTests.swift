import Foundation
import Testing

@testable import PEFTSupport

@Suite struct ProgramOutputTests {
    private func shell(_ script: String, input: URL? = nil) throws -> ProgramOutput {
        try ProgramOutput(URL(fileURLWithPath: "/bin/sh"), ["-c", script], input: input, name: "rows")
    }

    private func text(_ program: ProgramOutput) throws -> String {
        var bytes: [UInt8] = []
        while true {
            let piece = try program.read(upTo: 7)
            if piece.isEmpty { return String(decoding: bytes, as: UTF8.self) }
            bytes += piece
        }
    }

    @Test func outputInPieces() throws {
        #expect(try text(shell("printf 'one\\ntwo and three'; echo noise >&2")) == "one\ntwo and three")
        #expect(try text(shell("cat")) == "")
        // More on standard error than a pipe holds doesn't stop the program.
        #expect(try text(shell("head -c 300000 /dev/zero >&2; echo end")) == "end\n")
    }

    @Test func failuresAreOneLine() throws {
        let program = try shell("echo partly; printf '\\nIO Error:\\n  no file\\n\\nLINE 1: …' >&2; exit 3")
        let error = #expect(throws: PEFTError.self) { try text(program) }
        #expect(error?.description == "can't read rows; IO Error: no file")
        let silent = #expect(throws: PEFTError.self) { try text(shell("exit 3")) }
        #expect(silent?.description == "can't read rows; the program that reads it failed: exit code 3")
        let killed = #expect(throws: PEFTError.self) { try text(shell("kill -9 $$")) }
        #expect(killed?.description.hasSuffix("killed by signal 9") == true)
        #expect(throws: PEFTError.self) { try ProgramOutput(URL(fileURLWithPath: "/nowhere"), [], name: "rows") }
    }

    /// A program whose output nobody reads any more has ended when its reader is gone.
    @Test func unreadProgramsEnd() throws {
        var program: ProgramOutput? = try shell("echo $$; exec cat /dev/zero")
        let process = String(decoding: try #require(program).read(upTo: 32).prefix { $0 != 0x0A }, as: UTF8.self)
        program = nil
        #expect(kill(try #require(pid_t(process)), 0) == -1)
    }
}
