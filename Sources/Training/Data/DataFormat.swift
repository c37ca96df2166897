import Support

/// How a data file holds its rows.
enum DataFormat: Sendable {
    case jsonLines, json, csv, tsv, text, parquet

    /// Every extension that is read; a compression's may follow it, except after `parquet`.
    static let extensions: [(name: String, format: DataFormat)] = [
        ("jsonl", .jsonLines), ("ndjson", .jsonLines), ("json", .json), ("csv", .csv), ("tsv", .tsv), ("txt", .text),
        ("parquet", .parquet),
    ]

    /// The format that a name's extension means.
    /// - Throws: ``PEFTError`` for an extension that isn't known.
    init(fileName: String) throws {
        let compression = Compression.of(fileName)
        let bare = compression.map { fileName.dropLast($0.fileExtension.count + 1) } ?? fileName[...]
        let last = bare.split(separator: "/").last ?? bare
        let dot = last.lastIndex(of: ".")
        let ending = dot.map { last[last.index(after: $0)...].lowercased() } ?? ""
        guard let known = Self.extensions.first(where: { $0.name == ending }) else {
            let all = Self.extensions.map { ".\($0.name)" }
            throw PEFTError(
                "\(fileName) has the unknown data format '\(ending)'",
                remedy: "use \(all.dropLast().joined(separator: ", ")) or \(all.last ?? "")"
                    + " (text formats also compressed: \(Compression.all.map { ".\($0.fileExtension)" }.joined(separator: ", ")))"
            )
        }
        guard known.format != .parquet || compression == nil else {
            throw PEFTError("\(fileName) is a compressed Parquet file", remedy: "decompress it")
        }
        self = known.format
    }

    var isJSON: Bool { self == .jsonLines || self == .json }
}
