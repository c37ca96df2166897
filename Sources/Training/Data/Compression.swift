import Foundation
import PEFTSupport

/// A compression format, decompressed by an external program while the file is read.
struct Compression: Sendable {
    let fileExtension: String
    let program: String

    /// To support another format, add a row.
    static let all = [
        Compression(fileExtension: "gz", program: "gzip"),
        Compression(fileExtension: "bz2", program: "bzip2"),
        Compression(fileExtension: "xz", program: "xz"),
        Compression(fileExtension: "zst", program: "zstd"),
    ]

    static func of(_ name: String) -> Compression? {
        all.first { name.lowercased().hasSuffix("." + $0.fileExtension) }
    }

    /// The decompressed bytes of a file.
    func open(_ file: URL) throws -> ByteStream {
        // Report missing and unreadable files before the program does.
        try ByteStream.open(file).close()
        guard let program = ProgramOutput.find(program) else {
            throw PEFTError(
                "reading \(file.relativePath) requires the program '\(program)', which is not on the PATH",
                remedy: "install \(program), or decompress the file")
        }
        return ByteStream(try ProgramOutput(program, ["-dc"], input: file, name: file.relativePath))
    }
}
