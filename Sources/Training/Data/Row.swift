import Support

/// One row of a data set: named values, and where they came from.
public struct Row: Sendable, Hashable {
    /// The row's fields by name; their order in the file has no meaning.
    public var fields: [String: JSON]
    /// Where the row stands, for errors that a user can act on.
    public var location: Location
    /// The row's JSON as the file has it, where the order of its keys counts; `nil` where that wasn't asked for.
    public var text: String?

    public init(_ fields: [String: JSON], location: Location, text: String? = nil) {
        self.fields = fields
        self.location = location
        self.text = text
    }

    public subscript(field: String) -> JSON? { fields[field] }

    /// A place in a data file, such as `train.jsonl line 12`.
    public struct Location: Sendable, Hashable, CustomStringConvertible {
        public enum Unit: String, Sendable, Hashable {
            /// The number counts lines of text: JSON Lines, CSV, TSV.
            case line
            /// The number counts the elements of one JSON array.
            case element
            /// The number counts rows: of a Parquet file, a query, or columns of a JSON object.
            case row
        }

        /// Path of the file, as it was given.
        public var file: String
        /// Counts from 1. A CSV row that spans several lines has the number of its first.
        public var number: Int
        public var unit: Unit

        public init(file: String, number: Int, unit: Unit = .line) {
            (self.file, self.number, self.unit) = (file, number, unit)
        }

        public var description: String { "\(file) \(unit.rawValue) \(number)" }
    }
}
