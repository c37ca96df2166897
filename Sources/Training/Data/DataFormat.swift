import PEFTSupport

/// The format of a data file.
enum DataFormat: Sendable {
    case jsonLines, json, csv, tsv, text, parquet

    /// All supported extensions; except for `parquet`, a compression's extension may follow.
    static let extensions: [(name: String, format: DataFormat)] = [
        ("jsonl", .jsonLines), ("ndjson", .jsonLines), ("json", .json), ("csv", .csv), ("tsv", .tsv), ("txt", .text),
        ("parquet", .parquet),
    ]

    /// The format by the name's extension.
    /// - Throws: ``PEFTError`` for an unknown extension.
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
