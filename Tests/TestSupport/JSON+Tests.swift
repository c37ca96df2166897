import Foundation
import PEFTSupport

extension JSON {
    /// The integers of an array; empty for anything else.
    package var integers: [Int] { (array ?? []).compactMap(\.int) }

    /// The examples of a fixture, `"rows": [[[input ids], [target ids]], …]`.
    package var rows: [(input: [Int], target: [Int])] {
        (self["rows"]?.array ?? []).map { row in
            let parts = (row.array ?? []).map(\.integers)
            return (parts.first ?? [], parts.last ?? [])
        }
    }

    /// Changes the fields of the object in a file, such as a configuration.
    package static func rewrite(_ file: URL, _ change: (inout [String: JSON]) throws -> Void) throws {
        guard var fields = try read(file).object else { throw PEFTError("\(file.path) has no JSON object") }
        try change(&fields)
        try AtomicFile.write(JSON.object(fields).text(), to: file)
    }
}
