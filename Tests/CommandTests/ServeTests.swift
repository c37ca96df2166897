import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import PEFTCommand

/// `peft serve` runs the program beside it.
@Suite struct ServeTests {
    @Test func theServerIsBesideTheProgram() throws {
        try withTemporaryFolder { folder in
            let own = folder.appendingPathComponent("peft")
            let error = try #require(throws: PEFTError.self) { try ServeCommand.server(besides: own) }
            #expect(error.description.contains("make server"))
            let server = folder.appendingPathComponent("peft-server")
            try Data("#!/bin/sh\n".utf8).write(to: server)
            // A file that can't be run is no server.
            #expect(throws: PEFTError.self) { try ServeCommand.server(besides: own) }
            try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: server.path)
            #expect(try ServeCommand.server(besides: own).lastPathComponent == "peft-server")
        }
    }
}
