import CHub
import Foundation

/// The checksum in a blob's name.
enum Checksum: Equatable, Sendable {
    /// SHA-256 of the content, for LFS files.
    case sha256(String)
    /// Git's SHA-1 of `blob <length>`, a zero byte and the content.
    case git(String)

    /// - Returns: `nil` if the name is neither.
    init?(etag: String) {
        guard etag.utf8.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }) else { return nil }
        switch etag.utf8.count {
        case 64: self = .sha256(etag)
        case 40: self = .git(etag)
        default: return nil
        }
    }
}

/// Computes a checksum incrementally.
struct Digest {
    private var state = chub_digest()
    private let isGit: Bool

    /// - Parameter count: total number of bytes, which is part of git's checksum.
    init(for checksum: Checksum, count: Int) {
        if case .git = checksum {
            isGit = true
            chub_sha1_begin(&state)
            add(Data("blob \(count)\0".utf8))
        } else {
            isGit = false
            chub_sha256_begin(&state)
        }
    }

    mutating func add(_ bytes: UnsafeRawBufferPointer) {
        if isGit {
            chub_sha1_add(&state, bytes.baseAddress, bytes.count)
        } else {
            chub_sha256_add(&state, bytes.baseAddress, bytes.count)
        }
    }

    mutating func add(_ data: Data) { data.withUnsafeBytes { add($0) } }

    /// The checksum of all added data.
    mutating func finish() -> Checksum {
        var sum = [UInt8](repeating: 0, count: isGit ? 20 : 32)
        if isGit { chub_sha1_end(&state, &sum) } else { chub_sha256_end(&state, &sum) }
        let text = sum.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        return isGit ? .git(text) : .sha256(text)
    }
}
