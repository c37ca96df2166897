import Foundation
import PEFTHub
import PEFTSupport

/// Resolves the folder for `--model` or `--adapter`.
public enum ModelLocator {
    /// Name of the bundled base model.
    public static let embedded = "tiny-t5"

    /// Which files of a model are needed.
    package enum Part: Sendable {
        /// `config.json` (or an adapter's), and the tokenizer if there is one.
        case description
        /// The weights too.
        case weights
    }

    /// Downloads missing files of a repository into the cache and returns their folder.
    package typealias Fetch = (HubName, FileSelection) throws -> URL

    /// Finds the folder of a model.
    /// - Parameters:
    ///   - name: a folder; a GGUF file; `tiny-t5`; or a Hub name such as `google/flan-t5-base` or
    ///     `google/flan-t5-base@main`.
    ///   - downloads: whether files that aren't in the cache shared with Python tools are downloaded.
    /// - Throws: ``PEFTError`` that lists the searched places.
    public static func folder(_ name: String, downloads: Bool = false) throws -> URL {
        try folder(name, needing: .weights, fetch: fetch(downloads))
    }

    /// Finds the folder of an adapter by its path or Hub name.
    /// - Parameters:
    ///   - name: a path or a Hub name.
    ///   - downloads: whether files that aren't in the cache shared with Python tools are downloaded.
    /// - Throws: ``PEFTError`` if a Hub name is not in the cache and can't be downloaded. A missing path is an error
    ///   where the folder is read.
    public static func adapter(_ name: String, downloads: Bool = false) throws -> URL {
        try adapter(name, settings: HubSettings(), fetch: fetch(downloads))
    }

    private static func fetch(_ downloads: Bool) -> Fetch? {
        guard downloads else { return nil }
        return { try HubClient(HubSettings()).pull($0, $1).folder }
    }

    /// - Parameter fetch: downloads what isn't in the cache.
    package static func folder(
        _ name: String, needing part: Part, settings: HubSettings = HubSettings(), fetch: Fetch? = nil
    ) throws -> URL {
        if let folder = localFolder(name) { return folder }
        if name == embedded {
            guard let folder = EmbeddedModels.folder(name) else { throw EmbeddedModels.missing(name) }
            return folder
        }
        return try repository(name, kind: "model", settings, fetch, part == .weights ? .needed : .description) {
            part == .weights ? hasWeights($0) : has("config.json", $0) || has("adapter_config.json", $0)
        }
    }

    /// - Parameter fetch: downloads what isn't in the cache.
    package static func adapter(_ name: String, settings: HubSettings = HubSettings(), fetch: Fetch?) throws
        -> URL
    {
        let path = URL(fileURLWithPath: NSString(string: name).expandingTildeInPath)
        // A path that isn't a Hub name is reported where the folder is read.
        if localFolder(name) != nil || (try? HubName(name)) == nil { return path }
        let cache = HubCache(settings)
        guard name.contains("/") || (try? cache.snapshot(HubName(name))) != nil else { return path }
        return try repository(name, kind: "adapter", settings, fetch, .needed) {
            has("adapter_config.json", $0) && (has("adapter_model.safetensors", $0) || has("adapter_model.bin", $0))
        }
    }

    /// The name if it can be one on a hub, rather than a path on this machine or the bundled model.
    package static func hubName(_ name: String) -> String? {
        guard name != embedded, localFolder(name) == nil, (try? HubName(name)) != nil,
            name.contains("/") || oldest.contains(name)
        else { return nil }
        return name.split(separator: "@").first.map(String.init)
    }

    private static func localFolder(_ name: String) -> URL? {
        var isFolder: ObjCBool = false
        let path = NSString(string: name).expandingTildeInPath
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder),
            isFolder.boolValue || GGUFHeader.isName(URL(fileURLWithPath: path))
        else { return nil }
        return URL(fileURLWithPath: path)
    }

    private static func repository(
        _ text: String, kind: String, _ settings: HubSettings, _ fetch: Fetch?, _ extent: FileSelection.Extent,
        isComplete: (URL) -> Bool
    ) throws -> URL {
        let cache = HubCache(settings)
        let known = cache.names
        func missing() -> PEFTError {
            let nearest = nearestName(to: text, in: known + [embedded]).map { "did you mean '\($0)'? " } ?? ""
            return PEFTError(
                "there is no \(kind) '\(text)'",
                remedy: nearest + "pass a folder in Hugging Face's layout, '\(embedded)', or a Hub name; the cache is"
                    + " \(cache.folder.path)")
        }
        guard let name = try? HubName(text) else { throw missing() }
        if let snapshot = cache.snapshot(name), isComplete(snapshot) { return snapshot }
        // A name without an owner is more likely a mistyped folder than one of the Hub's oldest models.
        guard let fetch, !settings.isOffline,
            text.contains("/") || cache.snapshot(name) != nil || oldest.contains(text)
        else {
            guard let snapshot = cache.snapshot(name) else { throw missing() }
            throw PEFTError(
                "\(snapshot.path) lacks files of the \(kind) '\(text)'",
                remedy: settings.isOffline
                    ? "unset HF_HUB_OFFLINE to download them" : "download them with peft pull \(text)")
        }
        return try fetch(name, FileSelection(extent))
    }

    /// Models from before names had owners.
    private static let oldest: Set = [
        "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2", "t5-small", "t5-base", "t5-large", "t5-3b",
        "t5-11b", "bert-base-uncased", "bert-base-cased", "bert-large-uncased", "bert-large-cased", "roberta-base",
        "roberta-large", "distilroberta-base", "distilbert-base-uncased", "distilbert-base-cased",
    ]

    private static func has(_ file: String, _ folder: URL) -> Bool {
        // A symbolic link to a missing blob counts as absent.
        FileManager.default.fileExists(atPath: folder.appendingPathComponent(file).path)
    }

    private static func hasWeights(_ folder: URL) -> Bool {
        guard has("config.json", folder) else { return false }
        for index in ["model.safetensors", "pytorch_model.bin"] {
            if has(index, folder) { return true }
            let file = folder.appendingPathComponent(index + ".index.json")
            if let map = try? JSON.read(file)["weight_map"]?.object {
                return Set(map.values.compactMap(\.string)).allSatisfy { has($0, folder) }
            }
        }
        return false
    }
}
