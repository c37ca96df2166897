import Foundation
import PEFTSupport

/// The method and the body of a request that sends data.
struct RequestBody: Sendable {
    let method: String
    let size: Int
    private let source: Source

    private enum Source: Sendable {
        case data(Data)
        case file(URL, offset: Int)
    }

    static func post(_ data: Data) -> RequestBody {
        RequestBody(method: "POST", size: data.count, source: .data(data))
    }
    static func post(_ json: JSON) -> RequestBody { post(Data(json.text(indent: nil).utf8)) }

    /// Bytes of a file, which are read as they are sent.
    static func put(_ file: URL, offset: Int, count: Int) -> RequestBody {
        RequestBody(method: "PUT", size: count, source: .file(file, offset: offset))
    }

    /// Copies up to `buffer.count` bytes from an offset on.
    /// - Returns: their number; 0 at the end.
    /// - Throws: ``PEFTError`` if the file can't be read or became shorter.
    func read(into buffer: UnsafeMutableRawBufferPointer, from offset: Int) throws -> Int {
        let count = min(buffer.count, size - offset)
        guard count > 0, offset >= 0 else { return 0 }
        switch source {
        case .data(let data):
            data.withUnsafeBytes { bytes in
                buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count]))
            }
            return count
        case .file(let file, let start):
            let descriptor = open(file.path, O_RDONLY | O_CLOEXEC)
            defer { if descriptor >= 0 { close(descriptor) } }
            let got = descriptor < 0 ? -1 : pread(descriptor, buffer.baseAddress, count, off_t(start + offset))
            guard got > 0 else {
                throw PEFTError(
                    "can't read \(file.path)\(got == 0 ? ": it became shorter" : "")",
                    remedy: "push again when no program writes to it")
            }
            return got
        }
    }
}
