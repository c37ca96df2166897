import Foundation
import Support

/// Finds the folder that `--model` means.
public enum ModelLocator {
    /// Name of the base model that comes with the project.
    public static let embedded = "tiny-t5"

    /// - Parameter name: a folder; `tiny-t5`; or a hub name such as `google/flan-t5-base` that is in the cache
    ///   that Python tools share.
    /// - Throws: ``PEFTError`` saying where was looked.
    public static func folder(_ name: String) throws -> URL {
        var isFolder: ObjCBool = false
        let path = NSString(string: name).expandingTildeInPath
        if FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder.boolValue {
            return URL(fileURLWithPath: path)
        }
        if name == embedded, let folder = embeddedFolder { return folder }
        if let cached = cachedSnapshot(name) { return cached }
        throw PEFTError(
            "there is no model '\(name)'",
            remedy:
                "name a folder in Hugging Face's layout, '\(embedded)', or a hub name that is in the cache at \(cache.path)"
        )
    }

    /// `Models/tiny-t5` of the checkout that the program was built in, or beside the working directory.
    private static var embeddedFolder: URL? {
        let program = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        let start =
            FileManager.default.fileExists(atPath: program.path)
            ? program : URL(fileURLWithPath: CommandLine.arguments.first ?? ".").resolvingSymlinksInPath()
        var folders = [URL(fileURLWithPath: FileManager.default.currentDirectoryPath)]
        var parent = start.deletingLastPathComponent()
        while parent.path != "/" {
            folders.append(parent)
            parent = parent.deletingLastPathComponent()
        }
        return folders.map { $0.appendingPathComponent("Models/\(embedded)") }.first {
            FileManager.default.fileExists(atPath: $0.appendingPathComponent("config.json").path)
        }
    }

    /// Where `huggingface_hub` keeps what it fetched.
    private static var cache: URL {
        let environment = ProcessInfo.processInfo.environment
        if let folder = environment["HF_HUB_CACHE"] { return URL(fileURLWithPath: folder) }
        if let home = environment["HF_HOME"] { return URL(fileURLWithPath: home).appendingPathComponent("hub") }
        let base =
            environment["XDG_CACHE_HOME"].map { URL(fileURLWithPath: $0) }
            ?? FileManager.default.homeDirectoryForCurrentUser.appendingPathComponent(".cache")
        return base.appendingPathComponent("huggingface/hub")
    }

    private static func cachedSnapshot(_ name: String) -> URL? {
        guard !name.hasPrefix("/"), !name.contains(".."), name.split(separator: "/").count <= 2 else { return nil }
        let folder = cache.appendingPathComponent("models--" + name.replacingOccurrences(of: "/", with: "--"))
        let reference = folder.appendingPathComponent("refs/main")
        guard let commit = try? String(contentsOf: reference, encoding: .utf8) else { return nil }
        let snapshot = folder.appendingPathComponent(
            "snapshots/\(commit.trimmingCharacters(in: .whitespacesAndNewlines))")
        return FileManager.default.fileExists(atPath: snapshot.path) ? snapshot : nil
    }
}
