import Foundation
import PEFTSupport

/// Finds the models that are bundled with the project.
enum EmbeddedModels {
    /// Folders that may contain them, in order of precedence: `PEFT_MODELS`; `Models` in the working directory, next
    /// to the program or above it; and the checkout that the library was built from, for programs of other packages.
    static func places(
        environment: [String: String] = ProcessInfo.processInfo.environment, program: URL? = EmbeddedModels.program,
        source: String = #filePath
    ) -> [URL] {
        if let chosen = environment["PEFT_MODELS"], !chosen.isEmpty {
            return [URL(fileURLWithPath: NSString(string: chosen).expandingTildeInPath)]
        }
        var parents = [URL(fileURLWithPath: FileManager.default.currentDirectoryPath)]
        var parent = program?.deletingLastPathComponent()
        while let folder = parent, folder.path != "/", !folder.path.isEmpty {
            parents.append(folder)
            parent = folder.deletingLastPathComponent()
        }
        // Sources/LanguageModels/EmbeddedModels.swift
        parents.append(
            URL(fileURLWithPath: source).deletingLastPathComponent().deletingLastPathComponent()
                .deletingLastPathComponent())
        return parents.map { $0.appendingPathComponent("Models") }
    }

    /// The folder of a bundled model.
    /// - Returns: `nil` if none of the places contains it.
    static func folder(_ name: String, in places: [URL] = places()) -> URL? {
        places.map { $0.appendingPathComponent(name) }.first {
            FileManager.default.fileExists(atPath: $0.appendingPathComponent("config.json").path)
        }
    }

    /// The error for a bundled model that isn't found.
    static func missing(_ name: String, in places: [URL] = places()) -> PEFTError {
        let chosen = places.count == 1
        let first = places.first?.path ?? ""
        let last = places.last?.path ?? ""
        return PEFTError(
            chosen
                ? "PEFT_MODELS is \(first), which has no model '\(name)'"
                : "the bundled model '\(name)' was found neither in \(first), nor beside the program, nor in \(last)",
            remedy: "set PEFT_MODELS to the Models folder of a swift-peft checkout, or pass a model folder")
    }

    /// The URL of the running program.
    private static var program: URL? {
        let path = Bundle.main.executableURL ?? CommandLine.arguments.first.map { URL(fileURLWithPath: $0) }
        return path?.resolvingSymlinksInPath()
    }
}
