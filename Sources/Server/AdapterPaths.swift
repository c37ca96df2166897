import Foundation

/// The folders from which clients may load adapters.
struct AdapterPaths: Sendable {
    /// Folders without symbolic links in their paths.
    private let allowed: [String]

    init(_ folders: [String]) {
        allowed = folders.map { Self.resolved(URL(fileURLWithPath: NSString(string: $0).expandingTildeInPath)) }
    }

    /// The folder of a path: an absolute one, or relative to an allowed folder.
    /// - Throws: ``APIError`` if it, or a file in it, is outside of the allowed folders.
    func folder(_ path: String) throws -> URL {
        guard !allowed.isEmpty else {
            throw APIError(
                .forbidden,
                "this server loads no adapters on request; start it with --adapters-dir or --allow-adapters-from",
                type: "permission_error", parameter: "lora_path", code: "loading_disabled")
        }
        guard !path.isEmpty, !path.utf8.contains(0), path.utf8.count < 4096 else {
            throw APIError.invalid("'lora_path' is not a path", "lora_path")
        }
        let candidates =
            path.hasPrefix("/")
            ? [URL(fileURLWithPath: path)] : allowed.map { URL(fileURLWithPath: $0).appendingPathComponent(path) }
        for candidate in candidates {
            let real = Self.resolved(candidate)
            guard isAllowed(real) else { continue }
            var isFolder: ObjCBool = false
            guard FileManager.default.fileExists(atPath: real, isDirectory: &isFolder), isFolder.boolValue else {
                continue
            }
            let folder = URL(fileURLWithPath: real)
            let files = (try? FileManager.default.contentsOfDirectory(atPath: real)) ?? []
            guard files.allSatisfy({ isAllowed(Self.resolved(folder.appendingPathComponent($0))) }) else { break }
            return folder
        }
        // The same answer for folders that don't exist and those that clients may not see.
        throw APIError(
            .notFound, "there is no folder '\(path)' among those from which adapters may be loaded",
            type: "not_found_error",
            parameter: "lora_path", code: "adapter_not_found")
    }

    private func isAllowed(_ path: String) -> Bool {
        allowed.contains { path == $0 || path.hasPrefix($0.hasSuffix("/") ? $0 : $0 + "/") }
    }

    /// The path without symbolic links and `..`; for a file that doesn't exist, without `..`.
    private static func resolved(_ url: URL) -> String {
        guard let real = realpath(url.path, nil) else {
            return url.standardizedFileURL.resolvingSymlinksInPath().path
        }
        defer { free(real) }
        return String(cString: real)
    }
}
