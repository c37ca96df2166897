import Foundation

/// The addresses of the hub and its cache, from the environment variables of `huggingface_hub`.
package struct HubSettings: Sendable {
    /// `HF_ENDPOINT`: the hub's address, without a trailing slash.
    package var endpoint: String
    /// `HF_HUB_CACHE`, or `hub` in `HF_HOME`.
    package var cache: URL
    /// `HF_TOKEN`, or the contents of the token file.
    package var token: String?
    /// `HF_HUB_OFFLINE`: whether to use the cache only.
    package var isOffline: Bool
    /// `HF_HUB_DISABLE_SYMLINKS`: whether snapshots have copies instead of symlinks.
    package var usesSymlinks: Bool
    /// `HF_HUB_DISABLE_PROGRESS_BARS`.
    package var showsProgress: Bool
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: seconds without data after which a connection counts as lost.
    package var stallTimeout: Int
    /// `HF_HUB_ETAG_TIMEOUT`: seconds to wait for a connection.
    package var connectTimeout: Int
    /// A CA bundle (`REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, `SSL_CERT_FILE`).
    package var authorities: String?
    /// Seconds before the first retry; the delay doubles with each retry.
    package var retryDelay = 0.5
    /// Maximum number of consecutive attempts without progress.
    package var attempts = 5
    /// Number of parallel downloads.
    package var connections = 4

    /// The public hub.
    package static let publicEndpoint = "https://" + ["huggingface", "co"].joined(separator: ".")

    package init(environment: [String: String] = ProcessInfo.processInfo.environment) {
        func value(_ names: String...) -> String? { names.lazy.compactMap { environment[$0] }.first { !$0.isEmpty } }
        func isTrue(_ names: String...) -> Bool {
            names.contains { ["1", "ON", "YES", "TRUE"].contains(environment[$0]?.uppercased() ?? "") }
        }
        func file(_ path: String) -> URL { URL(fileURLWithPath: Self.expanded(path, environment)) }
        let home =
            value("HF_HOME").map(file)
            ?? (value("XDG_CACHE_HOME").map(file) ?? file("~/.cache")).appendingPathComponent("huggingface")
        var endpoint = value("HF_ENDPOINT") ?? Self.publicEndpoint
        while endpoint.hasSuffix("/") { endpoint.removeLast() }
        self.endpoint = endpoint
        cache = value("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE").map(file) ?? home.appendingPathComponent("hub")
        isOffline = isTrue("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
        usesSymlinks = !isTrue("HF_HUB_DISABLE_SYMLINKS")
        showsProgress = !isTrue("HF_HUB_DISABLE_PROGRESS_BARS")
        stallTimeout = value("HF_HUB_DOWNLOAD_TIMEOUT").flatMap(Int.init).map { max(1, $0) } ?? 10
        connectTimeout = value("HF_HUB_ETAG_TIMEOUT").flatMap(Int.init).map { max(1, $0) } ?? 10
        authorities = value("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
        let stored = value("HF_TOKEN_PATH").map(file) ?? home.appendingPathComponent("token")
        token = isTrue("HF_HUB_DISABLE_IMPLICIT_TOKEN") ? nil : Self.clean(environment["HF_TOKEN"])
        if token == nil, !isTrue("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            token = Self.clean(try? String(contentsOf: stored, encoding: .utf8))
        }
    }

    /// A token without line breaks, which would inject headers; `nil` if it is empty.
    private static func clean(_ token: String?) -> String? {
        let text = token?.filter { !$0.isNewline }.trimmingCharacters(in: .whitespaces)
        return text?.isEmpty == false ? text : nil
    }

    /// The path with `~`, `$NAME` and `${NAME}` replaced.
    private static func expanded(_ path: String, _ environment: [String: String]) -> String {
        var text = path
        if text == "~" || text.hasPrefix("~/") {
            let home = environment["HOME"] ?? FileManager.default.homeDirectoryForCurrentUser.path
            text = home + text.dropFirst()
        }
        return text.replacing(#/\$(?:\{(\w+)\}|(\w+))/#) { match in
            let name = match.1 ?? match.2 ?? ""
            return environment[String(name)] ?? String(match.0)
        }
    }
}
