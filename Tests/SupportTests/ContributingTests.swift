import Foundation
import PEFTSupport
import TestSupport
import Testing

/// The code of CONTRIBUTING's walk-throughs is that of files which tests compile and run.
@Suite struct ContributingTests {
    private static let page = Result { try text(Checkout.root.appendingPathComponent("CONTRIBUTING.md")) }

    private static func text(_ file: URL) throws -> String { try String(contentsOf: file, encoding: .utf8) }

    /// The files whose code the page shows: those in folders `WalkThrough` of test targets, and one family.
    private static func files() throws -> [URL] {
        let tests = Checkout.root.appendingPathComponent("Tests")
        let folders = try FileManager.default.contentsOfDirectory(at: tests, includingPropertiesForKeys: nil)
        let examples = folders.map { $0.appendingPathComponent("WalkThrough") }.flatMap { folder in
            (try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)) ?? []
        }
        let family = Checkout.root.appendingPathComponent("Sources/LanguageModels/Models/Mistral.swift")
        return examples.filter { $0.pathExtension == "swift" && $0.lastPathComponent != "WalkThroughTests.swift" } + [
            family
        ]
    }

    /// A file's code in its own module, which need not be imported.
    private static func shown(_ file: URL) throws -> String {
        try text(file).replacing(/@testable import \w+\n\n/, with: "")
    }

    /// The sections of the page that add something, by their headings.
    private static func walkThroughs() throws -> [(heading: String, text: String)] {
        try page.get().components(separatedBy: "\n## ").filter { $0.hasPrefix("Add ") }.map {
            let parts = $0.split(separator: "\n", maxSplits: 1).map(String.init)
            return (parts[0], parts.count > 1 ? parts[1] : "")
        }
    }

    @Test func codeIsThatOfCompiledFiles() throws {
        let shown = try Self.page.get().matches(of: /```swift\n((?s:.)*?)```/).map { String($0.1) }
        let files = try Self.files()
        #expect(files.count == 6)
        for file in files {
            #expect(try shown.contains(Self.shown(file)), "copy \(file.lastPathComponent) into CONTRIBUTING.md")
        }
        #expect(shown.count == files.count, "move other code of CONTRIBUTING.md into a folder WalkThrough")
    }

    @Test func everyKindOfAdditionHasCodeAndFiles() throws {
        let sections = try Self.walkThroughs()
        #expect(
            sections.map(\.heading) == [
                "Add a method", "Add a LoRA variant", "Add a model family", "Add a weight format", "Add a metric",
                "Add a command option",
            ])
        for (heading, text) in sections {
            #expect(text.contains("```swift\n"), "\(heading)")
            #expect(text.contains("Files:\n\n1. `Sources/"), "\(heading)")
        }
    }

    /// Paths without a placeholder are those of files and folders of the checkout.
    @Test func namedFilesExist() throws {
        let paths = try Self.page.get().matches(of: /`((?:Sources|Tests|docs|Scripts|Benchmarks|Examples)\/[^`*]*)`/)
            .map { String($0.1) }.filter { !$0.contains("NAME") }
        #expect(paths.count > 12)
        for path in paths {
            let file = Checkout.root.appendingPathComponent(path)
            #expect(FileManager.default.fileExists(atPath: file.path), "\(path)")
        }
    }
}
