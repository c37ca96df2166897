import Foundation

/// Files of the checkout that the tests were built from.
package enum Checkout {
    /// The package's root.
    package static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// The embedded model: an encoder-decoder of 656k parameters, with its tokenizer.
    package static let tinyT5 = root.appendingPathComponent("Models/tiny-t5")

    /// The small models of all families, which `Tests/LanguageModelsTests/Fixtures/make_*.py` wrote.
    package static let models = root.appendingPathComponent("Tests/LanguageModelsTests/Fixtures")

    /// A small model's folder, such as `llama`.
    package static func model(_ name: String) -> URL { models.appendingPathComponent(name) }
}
