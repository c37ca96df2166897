import Foundation
import TestSupport
import Testing

@testable import PEFTSupport

@Suite struct AtomicFileTests {
    private struct Failure: Error {}

    private func text(_ url: URL) throws -> String { try String(contentsOf: url, encoding: .utf8) }
    private func names(_ url: URL) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: url.path).sorted()
    }

    @Test func filesAreReplacedAsAWhole() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("a")
            try AtomicFile.write("long old content", to: file)
            try AtomicFile.write("new", to: file)
            #expect(try text(file) == "new")
            try AtomicFile.write(Data(), to: file)
            #expect(try text(file) == "")
            #expect(try names(folder) == ["a"])
        }
    }

    @Test func aFailureLeavesTheOldFile() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("a")
            try AtomicFile.write("old", to: file)
            #expect(throws: Failure.self) {
                try AtomicFile.write(to: file) { descriptor in
                    try Data("half".utf8).withUnsafeBytes { try AtomicFile.writeAll($0, to: descriptor, name: "a") }
                    throw Failure()
                }
            }
            #expect(try text(file) == "old")
            #expect(try names(folder) == ["a"])
        }
    }

    @Test(.enabled(if: FileManager.default.fileExists(atPath: "/dev/full"), "this system has no /dev/full"))
    func aFullDeviceIsReported() throws {
        let descriptor = open("/dev/full", O_WRONLY)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        let error = try #require(throws: PEFTError.self) {
            try Data("x".utf8).withUnsafeBytes { try AtomicFile.writeAll($0, to: descriptor, name: "here") }
        }
        #expect(error.problem.contains("here") && error.remedy?.contains("space") == true)
    }

    @Test func impossiblePlacesAreReported() throws {
        try withTemporaryFolder { folder in
            let nowhere = folder.appendingPathComponent("no/such/file")
            #expect(
                try #require(throws: PEFTError.self) { try AtomicFile.write("x", to: nowhere) }.problem.contains(
                    nowhere.path))
            let file = folder.appendingPathComponent("file")
            try AtomicFile.write("x", to: file)
            #expect(throws: PEFTError.self) {
                try AtomicFile.writeFolder(file.appendingPathComponent("sub")) { _ in }
            }
            // A file doesn't replace a folder.
            try FileManager.default.createDirectory(
                at: folder.appendingPathComponent("d"), withIntermediateDirectories: true)
            #expect(throws: PEFTError.self) { try AtomicFile.write("x", to: folder.appendingPathComponent("d")) }
            #expect(try names(folder) == ["d", "file"])
        }
    }

    @Test func foldersAreReplacedAsAWhole() throws {
        try withTemporaryFolder { parent in
            let folder = parent.appendingPathComponent("f")
            for round in 1...3 {
                try AtomicFile.writeFolder(folder) { new in
                    #expect(try names(new).isEmpty)
                    // Until the body has returned, the old content is what everybody sees.
                    #expect((try? names(folder)) == (round == 1 ? nil : ["round \(round - 1)"]))
                    try AtomicFile.write("x", to: new.appendingPathComponent("round \(round)"))
                }
                #expect(try names(folder) == ["round \(round)"])
                #expect(try names(parent) == ["f"])
            }
        }
    }

    @Test func aFailureLeavesTheOldFolder() throws {
        try withTemporaryFolder { parent in
            let folder = parent.appendingPathComponent("f")
            for exists in [false, true] {
                if exists {
                    try AtomicFile.writeFolder(folder) {
                        try AtomicFile.write("old", to: $0.appendingPathComponent("a"))
                    }
                }
                #expect(throws: Failure.self) {
                    try AtomicFile.writeFolder(folder) { new in
                        try AtomicFile.write("new", to: new.appendingPathComponent("a"))
                        throw Failure()
                    }
                }
                #expect(try names(parent) == (exists ? ["f"] : []))
                if exists { #expect(try text(folder.appendingPathComponent("a")) == "old") }
            }
        }
    }

    /// A crash leaves its temporary folders behind, and another process may get the same number.
    @Test func leftoversDoNotHurt() throws {
        try withTemporaryFolder { parent in
            let folder = parent.appendingPathComponent("f")
            for name in [".f.tmp-\(getpid())", ".f.old-\(getpid())"] {
                let leftover = parent.appendingPathComponent(name)
                try FileManager.default.createDirectory(at: leftover, withIntermediateDirectories: true)
                try Data("rubbish".utf8).write(to: leftover.appendingPathComponent("rubbish"))
            }
            try Data("rubbish".utf8).write(to: parent.appendingPathComponent("file.tmp-\(getpid())"))
            for text in ["one", "two"] {
                try AtomicFile.writeFolder(folder) { try AtomicFile.write(text, to: $0.appendingPathComponent("a")) }
                try AtomicFile.write(text, to: parent.appendingPathComponent("file"))
                #expect(try self.text(folder.appendingPathComponent("a")) == text)
                #expect(try self.text(parent.appendingPathComponent("file")) == text)
                #expect(try names(folder) == ["a"])
            }
        }
    }

    @Test func whatExistsByNowIsKept() throws {
        try withTemporaryFolder { parent in
            let (file, folder) = (parent.appendingPathComponent("a"), parent.appendingPathComponent("f"))
            try AtomicFile.write("first", to: file, replacing: false)
            let error = try #require(throws: PEFTError.self) {
                try AtomicFile.write("second", to: file, replacing: false)
            }
            #expect(error.problem.contains(file.path) && error.problem.contains("exists"))
            #expect(try text(file) == "first")
            for name in ["one", "two"] {
                let write = {
                    try AtomicFile.writeFolder(folder, replacing: false) {
                        try AtomicFile.write(name, to: $0.appendingPathComponent("a"))
                    }
                }
                if name == "one" { try write() } else { #expect(throws: PEFTError.self) { try write() } }
            }
            #expect(try text(folder.appendingPathComponent("a")) == "one")
            #expect(try names(parent) == ["a", "f"])
        }
    }

    @Test func devicesAreWrittenToAsTheyAre() throws {
        let null = URL(fileURLWithPath: "/dev/null")
        try AtomicFile.write("x", to: null)
        try AtomicFile.checkWritable(null, isFolder: false)
        #expect(AtomicFile.isDevice(null))
        #expect(throws: PEFTError.self) { try AtomicFile.write("x", to: URL(fileURLWithPath: "/dev/full")) }
    }

    @Test func outputsAreCheckedWithoutATrace() throws {
        try withTemporaryFolder { parent in
            try AtomicFile.checkWritable(parent.appendingPathComponent("a"), isFolder: false)
            try AtomicFile.checkWritable(parent.appendingPathComponent("b"), isFolder: true)
            try AtomicFile.checkWritable(parent.appendingPathComponent("no/such/folder"), isFolder: true)
            #expect(try names(parent).isEmpty)
            #expect(throws: PEFTError.self) {
                try AtomicFile.checkWritable(parent.appendingPathComponent("no/file"), isFolder: false)
            }
            let long = parent.appendingPathComponent(String(repeating: "x", count: 255))
            #expect(throws: PEFTError.self) { try AtomicFile.checkWritable(long, isFolder: true) }
            try AtomicFile.write("x", to: parent.appendingPathComponent("file"))
            #expect(throws: PEFTError.self) {
                try AtomicFile.checkWritable(parent.appendingPathComponent("file/a"), isFolder: true)
            }
            #expect(try names(parent) == ["file"])
        }
    }

    /// The number of a process that has ended.
    private func deadProcess() throws -> pid_t {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", ":"]
        try process.run()
        process.waitUntilExit()
        return process.processIdentifier
    }

    /// Of a killed process's temporary files those are removed that are an output's, and that nobody holds.
    @Test func leftoversOfKilledProcessesAreRemoved() throws {
        try withTemporaryFolder { parent in
            let dead = try deadProcess()
            func make(_ name: String) throws -> URL {
                let url = parent.appendingPathComponent(name)
                try Data("half".utf8).write(to: url)
                return url
            }
            for name in ["a.tmp-\(dead)", "b.tmp-\(dead)", "a.tmp-1", "a.tmp-x", "a.tmp-\(getppid())"] {
                _ = try make(name)
            }
            for name in [".a.tmp-\(dead)", ".a.old-\(dead)"] {
                let folder = parent.appendingPathComponent(name)
                try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
                try Data("half".utf8).write(to: folder.appendingPathComponent("part"))
            }
            let output = parent.appendingPathComponent("a")
            try AtomicFile.write("done", to: output)
            let held = try make("a.tmp-0\(dead)")
            let descriptor = open(held.path, O_RDWR)
            #expect(flock(descriptor, LOCK_EX | LOCK_NB) == 0)
            AtomicFile.removeLeftovers(of: output)
            close(descriptor)
            #expect(
                try names(parent)
                    == ["a", "a.tmp-0\(dead)", "a.tmp-1", "a.tmp-x", "a.tmp-\(getppid())", "b.tmp-\(dead)"].sorted())
        }
    }

    /// Killed between two renames, a process left the old folder under another name.
    @Test func aFolderThatWasBeingReplacedComesBack() throws {
        try withTemporaryFolder { parent in
            let dead = try deadProcess()
            let folder = parent.appendingPathComponent("f")
            try AtomicFile.writeFolder(folder) { try AtomicFile.write("old", to: $0.appendingPathComponent("a")) }
            try FileManager.default.moveItem(at: folder, to: parent.appendingPathComponent(".f.old-\(dead)"))
            try FileManager.default.createDirectory(
                at: parent.appendingPathComponent(".f.tmp-\(dead)"), withIntermediateDirectories: true)
            AtomicFile.removeLeftovers(of: folder)
            #expect(try names(parent) == ["f"])
            #expect(try text(folder.appendingPathComponent("a")) == "old")
        }
    }
}
