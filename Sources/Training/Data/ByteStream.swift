import Foundation
import PEFTSupport

/// The bytes of a data file, or of a program's output, read in chunks.
struct ByteStream {
    /// The next bytes, at most `count`; empty at the end.
    let read: (_ count: Int) throws -> [UInt8]

    init(_ read: @escaping (Int) throws -> [UInt8]) { self.read = read }

    /// - Throws: ``PEFTError`` where the file is missing, unreadable or a folder.
    init(_ file: URL) throws {
        let handle = try Self.open(file)
        read = { count in
            do { return [UInt8](try handle.read(upToCount: count) ?? Data()) } catch {
                throw PEFTError("can't read \(file.relativePath)", remedy: "check the disk it is on")
            }
        }
    }

    init(_ program: ProgramOutput) { read = { try program.read(upTo: $0) } }

    static func open(_ file: URL) throws -> FileHandle {
        var isFolder = ObjCBool(false)
        guard FileManager.default.fileExists(atPath: file.path, isDirectory: &isFolder) else {
            throw PEFTError("\(file.relativePath) doesn't exist", remedy: "check the path")
        }
        guard !isFolder.boolValue else {
            throw PEFTError("\(file.relativePath) is a folder", remedy: "pass a data file inside it")
        }
        do { return try FileHandle(forReadingFrom: file) } catch {
            throw PEFTError("can't read \(file.relativePath)", remedy: "check its permissions")
        }
    }

    /// Everything that is left.
    func readToEnd() throws -> [UInt8] {
        var bytes: [UInt8] = []
        while true {
            let piece = try read(1 << 20)
            if piece.isEmpty { return bytes }
            bytes += piece
        }
    }
}
