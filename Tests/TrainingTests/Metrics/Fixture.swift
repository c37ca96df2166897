import Foundation
import TestSupport
import Testing

/// Golden numbers that `Fixtures/make_metric_fixtures.py` wrote.
enum Fixture {
    static func read<Value: Decodable>(_ type: Value.Type, from name: String) throws -> Value {
        let url = try #require(Bundle.module.url(forResource: "Fixtures/\(name)", withExtension: "json"))
        return try JSONDecoder().decode(type, from: Data(contentsOf: url))
    }

    /// The folder of data sets beside the package root, which a plain checkout doesn't have.
    static func shared(_ path: String) -> URL? {
        let url = Checkout.root.deletingLastPathComponent().appendingPathComponent("shared/data/\(path)")
        return FileManager.default.fileExists(atPath: url.path) ? url : nil
    }
}

/// Whether two numbers agree to 1e-6.
func agrees(_ a: Double, _ b: Double) -> Bool { abs(a - b) <= 1e-6 }
