import Foundation
import Support

/// The file that says how a model generates: `generation_config.json` or, without one, the keys of the same names that older
/// folders have in `config.json`. It is parsed when a text is generated, so that a damaged one keeps nobody from training.
public struct GenerationSource: Sendable {
    /// Name of the file, for messages.
    public let name: String
    private let content: Result<JSON, PEFTError>

    init(name: String, _ json: JSON) {
        self.name = name
        content = .success(json)
    }

    /// - Parameter configuration: `config.json`.
    init(folder: URL, configuration: JSON) {
        let file = folder.appendingPathComponent("generation_config.json")
        guard FileManager.default.fileExists(atPath: file.path) else {
            (name, content) = ("config.json", .success(configuration))
            return
        }
        name = "generation_config.json"
        do { content = .success(try JSON.read(file)) } catch let error as PEFTError {
            content = .failure(error)
        } catch {
            content = .failure(PEFTError("can't read \(file.path)", remedy: "check that the file is readable"))
        }
    }

    /// - Throws: ``PEFTError`` naming the key whose value makes no sense.
    public func configuration() throws -> GenerationConfiguration {
        try GenerationConfiguration(content.get(), file: name)
    }
}
