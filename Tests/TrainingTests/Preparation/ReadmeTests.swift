import Foundation
import Testing

/// The README's program is `Examples/FineTune`, which is compiled.
@Suite struct ReadmeTests {
    @Test func readmeShowsTheProgramAsItIs() throws {
        let package = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        func text(_ path: String) throws -> String {
            try String(contentsOf: package.appendingPathComponent(path), encoding: .utf8)
        }
        let program = try text("Examples/FineTune/main.swift")
        #expect(program.split(separator: "\n").count <= 15)
        #expect(try text("README.md").contains("```swift\n\(program)```"), "copy Examples/FineTune into README.md")
    }
}
