import Foundation
import TestSupport
import Testing

@testable import PEFTSupport

@Suite struct FolderLockTests {

    @Test func anEmptyFolderGoesWithItsLock() throws {
        try withTemporaryFolder { parent in
            let folder = parent.appendingPathComponent("a/b")
            do {
                let lock = try FolderLock.hold(folder)
                #expect(try FolderLock.hold(folder) === lock)
                let holder = try String(contentsOf: lock.file, encoding: .utf8)
                #expect(holder.hasPrefix("\(getpid())\n"))
            }
            #expect(!FileManager.default.fileExists(atPath: folder.path))
            do {
                let lock = try FolderLock.hold(folder)
                try AtomicFile.write("kept", to: folder.appendingPathComponent("file"))
                withExtendedLifetime(lock) {}
            }
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["file"])
        }
    }

    /// The lock of another open file is that of another process.
    @Test func aHeldFolderIsRefused() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("lock")
            try "7\nhost\n2026-01-02T03:04:05Z\n".write(to: file, atomically: false, encoding: .utf8)
            let descriptor = open(file.path, O_RDWR)
            #expect(flock(descriptor, LOCK_EX | LOCK_NB) == 0)
            let error = try #require(throws: PEFTError.self) { try FolderLock.hold(folder) }
            #expect(error.problem.contains("(process 7 on host, since 2026-01-02T03:04:05Z)"))
            #expect(FileManager.default.fileExists(atPath: file.path))
            // What a killed process leaves is a file without a lock.
            close(descriptor)
            do {
                let lock = try FolderLock.hold(folder)
                #expect(try String(contentsOf: lock.file, encoding: .utf8).hasPrefix("\(getpid())\n"))
            }
            #expect(!FileManager.default.fileExists(atPath: folder.path))
        }
    }

    @Test func aFolderThatIsRemovedUnderItsLockIsNoProblem() throws {
        try withTemporaryFolder { parent in
            let folder = parent.appendingPathComponent("a")
            do {
                let lock = try FolderLock.hold(folder)
                try FileManager.default.removeItem(at: folder)
                // Another run's by now.
                try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
                try "other".write(to: lock.file, atomically: false, encoding: .utf8)
            }
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["lock"])
        }
    }
}
