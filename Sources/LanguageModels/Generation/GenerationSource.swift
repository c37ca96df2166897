import Foundation
import PEFTSupport

/// The file with a model's generation settings: `generation_config.json` or, in older folders, the same keys in
/// `config.json`. Its errors are deferred until generation, so that a damaged file doesn't prevent training.
package struct GenerationSource: Sendable {
    /// Name of the file, for messages.
    package let name: String
    /// Whether it is `config.json`, as the folder has no `generation_config.json`.
    let isModelConfiguration: Bool
    private let content: Result<JSON, PEFTError>

    init(name: String, _ json: JSON) {
        (self.name, isModelConfiguration) = (name, name == Self.modelConfiguration)
        content = .success(json)
    }

    private static let modelConfiguration = "config.json"

    /// - Parameter configuration: `config.json`.
    init(folder: URL, configuration: JSON) {
        let file = folder.appendingPathComponent("generation_config.json")
        guard FileManager.default.fileExists(atPath: file.path) else {
            (name, isModelConfiguration) = (Self.modelConfiguration, true)
            content = .success(configuration)
            return
        }
        (name, isModelConfiguration) = ("generation_config.json", false)
        do { content = .success(try JSON.read(file)) } catch let error as PEFTError {
            content = .failure(error)
        } catch {
            content = .failure(PEFTError("can't read \(file.path)", remedy: "check that the file is readable"))
        }
    }

    /// - Throws: ``PEFTError`` that names a key with an invalid value.
    package func configuration() throws -> GenerationConfiguration {
        try GenerationConfiguration(content.get(), file: name)
    }
}
