import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import Training

func read(_ name: String, _ content: String, limit: Int? = nil) throws -> [Row] {
    try withTemporaryFile(name, content.utf8) { try DataSet.read($0, limit: limit) }
}

/// The error's one line, with the temporary folder's path left out.
func message(of body: () throws -> Void) -> String {
    do {
        try body()
        return "no error"
    } catch let error as PEFTError {
        return error.description.split(separator: " ").map { word in
            word.hasPrefix("/") ? word.split(separator: "/").last ?? word : word
        }.joined(separator: " ")
    } catch { return "not a PEFTError: \(error)" }
}
