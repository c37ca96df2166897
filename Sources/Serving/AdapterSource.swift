import Foundation
import PEFT

/// An adapter's folder with its configuration and the directory of its tensors, read before the engine's thread attaches it. Belongs
/// to one thread at a time.
struct AdapterSource: @unchecked Sendable {
    /// Where it was read from.
    let url: URL
    private let contents: Result<AdapterFolder, ServingError>

    /// Reads the folder.
    /// - Parameter readsTensors: told the memory of the tensors, whether their bytes are read, too. They are in the system's page
    ///   cache afterwards.
    init(_ url: URL, readsTensors: (Int) -> Bool = { _ in false }) {
        self.url = url
        do { contents = .success(try AdapterFolder(url)) } catch {
            contents = .failure(ServingError(.adapter, error, parameter: "lora_path"))
        }
        guard case .success(let folder) = contents, readsTensors(folder.storedBytes) else { return }
        for name in (try? FileManager.default.contentsOfDirectory(atPath: url.path)) ?? []
        where name.hasPrefix("adapter_model") { Self.readAhead(url.appendingPathComponent(name)) }
    }

    /// - Throws: ``ServingError`` of kind ``ServingError/Kind/adapter`` if the folder is none of an adapter.
    var folder: AdapterFolder { get throws { try contents.get() } }

    private static func readAhead(_ file: URL) {
        // A file that can't be read is an error when its tensors are.
        guard let handle = try? FileHandle(forReadingFrom: file) else { return }
        defer { try? handle.close() }
        while let part = try? handle.read(upToCount: 1 << 20), !part.isEmpty {}
    }
}
