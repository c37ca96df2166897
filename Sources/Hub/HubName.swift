import PEFTSupport

/// A repository on a hub, at a revision: `google/flan-t5-base`, `google/flan-t5-base@main`, `gpt2@<commit>`.
package struct HubName: Hashable, Sendable, CustomStringConvertible {
    /// `owner/name`, or a name alone.
    package let id: String
    /// A branch, a tag or a commit.
    package let revision: String
    package static let mainRevision = "main"

    /// - Throws: ``PEFTError`` if the text is not a valid name.
    package init(_ text: String) throws {
        let parts = text.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        let (id, revision) = (parts[0], parts.count > 1 ? parts[1] : Self.mainRevision)
        guard Self.isIdentifier(id) else {
            throw PEFTError(
                "'\(text)' is not a model name on the hub", remedy: "write it as owner/name or owner/name@revision")
        }
        guard RemotePath.isSafe(revision), !revision.contains("\n"), revision.utf8.count <= 200 else {
            throw PEFTError(
                "'\(revision)' is not a valid revision", remedy: "write a branch, a tag or a commit after the @")
        }
        (self.id, self.revision) = (id, revision)
    }

    package var description: String { revision == Self.mainRevision ? id : "\(id)@\(revision)" }

    /// The repository's folder in the cache.
    var folderName: String { "models--" + id.replacing("/", with: "--") }

    private static func isIdentifier(_ id: String) -> Bool {
        let parts = id.split(separator: "/", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), id.utf8.count <= 96, !id.contains("--"), !id.contains("..") else {
            return false
        }
        return parts.allSatisfy { part in
            guard let first = part.utf8.first, let last = part.utf8.last else { return false }
            let edges = [UInt8(ascii: "-"), UInt8(ascii: ".")]
            return !edges.contains(first) && !edges.contains(last)
                && part.utf8.allSatisfy { byte in
                    switch byte {
                    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"),
                        UInt8(ascii: "."):
                        true
                    default: false
                    }
                }
        }
    }
}

/// File paths received from a server.
enum RemotePath {
    /// Whether a path stays inside the folder that it is appended to.
    static func isSafe(_ path: String) -> Bool {
        guard !path.isEmpty, path.utf8.count <= 1000, !path.utf8.contains(0), !path.contains("\\") else {
            return false
        }
        return path.split(separator: "/", omittingEmptySubsequences: false).allSatisfy {
            !$0.isEmpty && $0 != "." && $0 != ".." && $0.utf8.count <= 255
        }
    }

    /// The percent-encoded path (RFC 3986).
    static func encoded(_ path: String, keepingSlashes: Bool = true) -> String {
        var text = ""
        for byte in path.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."),
                UInt8(ascii: "~"):
                text.unicodeScalars.append(Unicode.Scalar(byte))
            case UInt8(ascii: "/") where keepingSlashes: text += "/"
            default:
                let digits = String(byte, radix: 16, uppercase: true)
                text += "%" + (digits.count == 1 ? "0" : "") + digits
            }
        }
        return text
    }
}
