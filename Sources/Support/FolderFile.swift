import Foundation

/// A file that is to lie in a folder: a copy of another, or a text.
package struct FolderFile {
    package let name: String
    private let content: Content

    private enum Content {
        case copy(URL)
        case text(String)
    }

    /// A copy of a file under its own name.
    package init(copyOf file: URL) { (name, content) = (file.lastPathComponent, .copy(file)) }

    package init(name: String, text: String) { (self.name, content) = (name, .text(text)) }

    /// - Throws: ``PEFTError`` where it can't be written.
    package func write(into folder: URL) throws {
        let target = folder.appendingPathComponent(name)
        switch content {
        case .text(let text): try AtomicFile.write(text, to: target)
        case .copy(let file):
            guard (try? FileManager.default.copyItem(at: file, to: target)) != nil else {
                throw PEFTError(
                    "can't copy \(file.path) to \(folder.path)", remedy: "check permissions and free space")
            }
        }
    }
}
