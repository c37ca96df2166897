import PEFTSupport

/// One row of a data file: named values and their location.
package struct Row: Sendable, Hashable {
    /// The row's fields by name.
    package var fields: [String: JSON]
    /// The row's location, for errors.
    package var location: Location
    /// The row's JSON text, which keeps the order of keys; `nil` unless it was requested.
    package var text: String?

    package init(_ fields: [String: JSON], location: Location, text: String? = nil) {
        self.fields = fields
        self.location = location
        self.text = text
    }

    package subscript(field: String) -> JSON? { fields[field] }

    /// A location in a data file, such as `train.jsonl line 12`.
    package struct Location: Sendable, Hashable, CustomStringConvertible {
        package enum Unit: String, Sendable, Hashable {
            /// The number counts lines of text: JSON Lines, CSV, TSV.
            case line
            /// The number counts the elements of one JSON array.
            case element
            /// The number counts rows: of a Parquet file, a query, or columns of a JSON object.
            case row
        }

        /// Path of the file as given by the user.
        package var file: String
        /// Counts from 1. A CSV row that spans several lines has the number of its first line.
        package var number: Int
        package var unit: Unit

        package init(file: String, number: Int, unit: Unit = .line) {
            (self.file, self.number, self.unit) = (file, number, unit)
        }

        package var description: String { "\(file) \(unit.rawValue) \(number)" }
    }
}
