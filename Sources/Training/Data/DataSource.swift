import Foundation
import PEFTSupport

/// A data source as given to `--data`: a file, a list inside a JSON file, a remote file, or an SQL query.
///
/// | written | meaning |
/// |---|---|
/// | `train.jsonl` | a file, which may be compressed (`train.csv.gz`) |
/// | `'parts/*.jsonl'` | several files, sorted by name |
/// | `data.json:train` | the list in a field of the file's JSON object |
/// | `https://…/train.parquet`, `hf://…`, `s3://…` | a remote file, through DuckDB |
/// | `select … from …`, `from …`, `with …` | an SQL query, through DuckDB |
package struct DataSource: Sendable, Hashable {
    enum Place: Sendable, Hashable {
        case file(URL)
        case remote(String)
        case query(String)
    }
    let place: Place
    /// The field of a JSON object that holds the rows.
    let list: String?

    package init(_ file: URL) { (place, list) = (.file(file), nil) }

    private init(_ place: Place, list: String? = nil) { (self.place, self.list) = (place, list) }

    /// - Parameter name: a source that is not a glob pattern.
    package init(_ name: String) {
        func file(_ path: String) -> URL { URL(fileURLWithPath: NSString(string: path).expandingTildeInPath) }
        if FileManager.default.fileExists(atPath: file(name).path) {
            self.init(file(name))
        } else if Self.isQuery(name) {
            self.init(.query(name))
        } else {
            let (path, list) = Self.parted(name)
            if let scheme = path.range(of: "^[A-Za-z][A-Za-z0-9+.-]*://", options: .regularExpression) {
                let isLocal = path[scheme].lowercased() == "file://"
                self.init(isLocal ? .file(file(String(path[scheme.upperBound...]))) : .remote(path), list: list)
            } else {
                self.init(.file(file(path)), list: list)
            }
        }
    }

    /// The sources of several names, in order; a glob pattern such as `*.jsonl` expands to the matching files.
    /// - Throws: ``PEFTError`` for a pattern that matches nothing.
    package static func all(_ names: [String]) throws -> [DataSource] {
        try names.flatMap { name -> [DataSource] in
            let source = DataSource(name)
            guard case .file(let file) = source.place, name.contains(where: { "*?[".contains($0) }),
                !FileManager.default.fileExists(atPath: file.path)
            else { return [source] }
            let files = matches(file.path)
            guard !files.isEmpty else { throw PEFTError("no file matches '\(name)'", remedy: "check the pattern") }
            return files.map { DataSource(.file(URL(fileURLWithPath: $0)), list: source.list) }
        }
    }

    /// The file, if it is one of this machine.
    package var file: URL? { if case .file(let file) = place { file } else { nil } }

    /// The name in errors.
    package var name: String {
        switch place {
        case .file(let file): file.relativePath
        case .remote(let address): address
        case .query: "the query"
        }
    }

    /// The last part of its path, or the query.
    package var shortName: String {
        switch place {
        case .file(let file): file.lastPathComponent
        case .remote(let address): address.split(separator: "/").last.map(String.init) ?? address
        case .query(let text): text
        }
    }

    /// - Throws: ``PEFTError`` for an unknown extension.
    func format() throws -> DataFormat {
        switch place {
        case .file(let file):
            do { return try DataFormat(fileName: file.relativePath) } catch {
                // Report a missing file first.
                try ByteStream.open(file).close()
                throw error
            }
        case .remote(let address):
            // Ignore the query and fragment of the URL.
            return try DataFormat(fileName: String(address.prefix { $0 != "?" && $0 != "#" }))
        case .query: return .parquet
        }
    }

    /// The bytes of the file, decompressed.
    func open() throws -> ByteStream {
        switch place {
        case .file(let file):
            if (try? format()) == .parquet { return try DuckDB.open(self) }
            return try Compression.of(file.lastPathComponent)?.open(file) ?? ByteStream(file)
        case .remote, .query: return try DuckDB.open(self)
        }
    }

    /// Whether there is one row per line, so that rows can be streamed.
    var isLines: Bool {
        get throws {
            switch place {
            case .file(let file):
                if (try? format()) == .parquet { return true }
                // This requires a look into the file.
                try ByteStream.open(file).close()
                return try RowLines(self) != nil
            case .query: return true
            case .remote:
                let format = try format()
                return DuckDB.writesRows(format) || format == .jsonLines
            }
        }
    }

    private static func isQuery(_ text: String) -> Bool {
        let words = text.split(whereSeparator: \.isWhitespace)
        return words.count > 1 && ["select", "from", "with"].contains(words[0].lowercased())
    }

    /// Splits a name into a path and the list after a colon.
    private static func parted(_ name: String) -> (path: String, list: String?) {
        guard let colon = name.lastIndex(of: ":") else { return (name, nil) }
        let (path, list) = (String(name[..<colon]), String(name[name.index(after: colon)...]))
        guard !list.isEmpty, !list.contains("/"), (try? DataFormat(fileName: path))?.isJSON == true else {
            return (name, nil)
        }
        return (path, list)
    }

    private static func matches(_ pattern: String) -> [String] {
        var found = glob_t()
        defer { globfree(&found) }
        guard glob(pattern, 0, nil, &found) == 0 else { return [] }
        return (0..<Int(found.gl_pathc)).compactMap { found.gl_pathv[$0].map { String(cString: $0) } }
    }
}
