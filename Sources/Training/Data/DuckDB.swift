import Foundation
import PEFTSupport

/// Reads Parquet, remote files and SQL queries through DuckDB's command line, which streams rows as lines.
///
/// See <https://duckdb.org/docs/stable/clients/cli/overview>.
enum DuckDB {
    /// The rows of a Parquet file, a remote file or a query: for text formats the file's own text, else JSON lines.
    static func open(_ source: DataSource) throws -> ByteStream {
        let arguments = try arguments(for: source)
        return ByteStream(try ProgramOutput(locate(for: source), arguments, name: source.name))
    }

    /// DuckDB's arguments; the user's settings (`~/.duckdbrc`) are ignored.
    static func arguments(for source: DataSource) throws -> [String] {
        let (query, areRows): (String, Bool)
        switch source.place {
        case .query(let text): (query, areRows) = (text, true)
        case .file(let file):
            try ByteStream.open(file).close()
            (query, areRows) = (statement(for: escaped(file.path), .parquet), true)
        case .remote(let address):
            let format = try source.format()
            guard !([.json, .text].contains(format) && Compression.of(address) != nil) else {
                throw PEFTError(
                    "\(address) is compressed, and compressed .json and .txt files can only be read locally",
                    remedy: "download it and pass the local file")
            }
            (query, areRows) = (statement(for: address, format), writesRows(format))
        }
        let mode = areRows ? ["-jsonlines"] : ["-list", "-noheader"]
        return ["-no-init", "-batch", "-bail"] + mode + ["-c", query]
    }

    /// Whether DuckDB writes a JSON line for each row rather than the file's own text.
    static func writesRows(_ format: DataFormat) -> Bool { [.parquet, .csv, .tsv].contains(format) }

    /// The SQL statement that reads a file. As with the built-in readers, all fields of tables are text, empty ones included.
    static func statement(for path: String, _ format: DataFormat) -> String {
        let name = quoted(path)
        let table = "all_varchar = true, header = true, nullstr = '\\N'"
        switch format {
        case .parquet: return "SELECT * FROM read_parquet(\(name))"
        case .csv: return "SELECT * FROM read_csv(\(name), \(table))"
        case .tsv: return "SELECT * FROM read_csv(\(name), \(table), delim = '\\t', quote = '', escape = '')"
        case .jsonLines: return "SELECT json FROM read_ndjson_objects(\(name))"
        case .json, .text: return "SELECT content FROM read_text(\(name))"
        }
    }

    /// An SQL string literal, in which only quotes are special.
    static func quoted(_ text: String) -> String { "'" + text.replacingOccurrences(of: "'", with: "''") + "'" }

    /// The glob pattern that matches exactly this path.
    static func escaped(_ path: String) -> String {
        path.map { "*?[".contains($0) ? "[\($0)]" : String($0) }.joined()
    }

    /// The program: `PEFT_DUCKDB`, else `duckdb` on the PATH, else the one cached by `make duckdb`.
    static func locate(for source: DataSource) throws -> URL {
        if let path = ProcessInfo.processInfo.environment["PEFT_DUCKDB"], !path.isEmpty {
            let file = URL(fileURLWithPath: path)
            guard ProgramOutput.isExecutable(file) else {
                throw PEFTError(
                    "PEFT_DUCKDB is \(path), which is not executable", remedy: "set it to the duckdb program")
            }
            return file
        }
        let cached = cacheFolder.appendingPathComponent("duckdb/duckdb")
        guard let program = ProgramOutput.find("duckdb") ?? (ProgramOutput.isExecutable(cached) ? cached : nil) else {
            throw PEFTError(
                "reading \(source.name) requires the program duckdb, which is not installed",
                remedy: "run make duckdb, or put duckdb on the PATH")
        }
        return program
    }

    /// The cache folder of `Scripts/setup-duckdb.py`.
    private static var cacheFolder: URL {
        let home = FileManager.default.homeDirectoryForCurrentUser
        #if canImport(Darwin)
            var base = home.appendingPathComponent("Library/Caches")
        #else
            var base = home.appendingPathComponent(".cache")
        #endif
        if let path = ProcessInfo.processInfo.environment["XDG_CACHE_HOME"], path.hasPrefix("/") {
            base = URL(fileURLWithPath: path)
        }
        return base.appendingPathComponent("swift-peft")
    }
}
