import Foundation
import PEFTSupport

/// A file to upload.
package struct UploadFile: Sendable {
    /// How a hub stores a file.
    package enum Mode: String, Sendable {
        /// In git itself, sent with the commit.
        case regular
        /// As an object of Git LFS, sent before the commit.
        case lfs
    }

    /// Its path in the repository.
    package let path: String
    package let size: Int
    let url: URL

    /// The files of a folder, sorted by path. Hidden and temporary files are left out.
    /// - Throws: ``PEFTError`` for a folder without files, and a file that can't be read.
    package static func all(in folder: URL) throws -> [UploadFile] {
        var files: [UploadFile] = []
        // Symbolic links are followed: a cache of a hub has no other files.
        func visit(_ folder: URL, _ prefix: String, depth: Int) throws {
            for name in try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
            where !name.hasPrefix(".") && !name.contains(".tmp-") && name != "__pycache__" {
                let url = folder.appendingPathComponent(name).resolvingSymlinksInPath()
                var status = stat()
                guard stat(url.path, &status) == 0 else {
                    throw PEFTError("can't read \(url.path)", remedy: "remove the broken link, or check permissions")
                }
                if status.st_mode & S_IFMT == S_IFDIR {
                    guard depth < 16 else {
                        throw PEFTError("\(url.path) is nested too deeply", remedy: "remove links that form a circle")
                    }
                    try visit(url, prefix + name + "/", depth: depth + 1)
                } else if status.st_mode & S_IFMT == S_IFREG {
                    guard access(url.path, R_OK) == 0 else {
                        throw PEFTError("can't read \(url.path)", remedy: "check its permissions")
                    }
                    files.append(UploadFile(path: prefix + name, size: Int(status.st_size), url: url))
                }
            }
        }
        do { try visit(folder, "", depth: 0) } catch let error as PEFTError { throw error } catch {
            throw PEFTError("can't read the folder \(folder.path)", remedy: "pass an adapter's folder")
        }
        guard !files.isEmpty else {
            throw PEFTError("\(folder.path) has no files", remedy: "pass an adapter's folder")
        }
        return files
    }

    /// The first bytes, by which a hub decides how to store the file.
    func sample() throws -> Data { try read(count: min(512, size)) }

    func content() throws -> Data { try read(count: size) }

    private func read(count: Int) throws -> Data {
        var data = Data(count: count)
        let body = RequestBody.put(url, offset: 0, count: count)
        var offset = 0
        while offset < count {
            offset += try data.withUnsafeMutableBytes { bytes in
                try body.read(into: UnsafeMutableRawBufferPointer(rebasing: bytes[offset...]), from: offset)
            }
        }
        return data
    }

    /// The SHA-256 of the content, in hexadecimal digits.
    func sha256() throws -> String { try Self.sha256(of: url, size: size) }

    /// The SHA-256 of a file of that size, in hexadecimal digits.
    package static func sha256(of url: URL, size: Int) throws -> String {
        let body = RequestBody.put(url, offset: 0, count: size)
        var digest = Digest(for: .sha256(""), count: size)
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        var offset = 0
        while offset < size {
            offset += try buffer.withUnsafeMutableBytes { bytes in
                let count = try body.read(into: bytes, from: offset)
                digest.add(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
                return count
            }
        }
        guard case .sha256(let sum) = digest.finish() else { return "" }
        return sum
    }
}
