import PEFTSupport

/// One row of a data file: named values and their location.
public struct Row: Sendable, Hashable {
    /// The row's fields by name.
    public var fields: [String: JSON]
    /// The row's location, for errors.
    public var location: Location
    /// The row's JSON text, which keeps the order of keys; `nil` unless it was requested.
    public var text: String?

    public init(_ fields: [String: JSON], location: Location, text: String? = nil) {
        self.fields = fields
        self.location = location
        self.text = text
    }

    public subscript(field: String) -> JSON? { fields[field] }

    /// A location in a data file, such as `train.jsonl line 12`.
    public struct Location: Sendable, Hashable, CustomStringConvertible {
        public enum Unit: String, Sendable, Hashable {
            /// The number counts lines of text: JSON Lines, CSV, TSV.
            case line
            /// The number counts the elements of one JSON array.
            case element
            /// The number counts rows: of a Parquet file, a query, or columns of a JSON object.
            case row
        }

        /// Path of the file as given by the user.
        public var file: String
        /// Counts from 1. A CSV row that spans several lines has the number of its first line.
        public var number: Int
        public var unit: Unit

        public init(file: String, number: Int, unit: Unit = .line) {
            (self.file, self.number, self.unit) = (file, number, unit)
        }

        public var description: String { "\(file) \(unit.rawValue) \(number)" }
    }
}
