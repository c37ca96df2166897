import Foundation
import PEFT
import TestSupport
import Testing

/// The method that CONTRIBUTING adds step by step is the one that is compiled and tested here.
@Suite struct WalkThroughTests {
    private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()

    @Test func contributingShowsTheFileAsItIs() throws {
        let code = try String(contentsOf: Self.folder.appendingPathComponent("OutputGate.swift"), encoding: .utf8)
        let page = try String(contentsOf: Checkout.root.appendingPathComponent("CONTRIBUTING.md"), encoding: .utf8)
        #expect(page.contains("```swift\n\(code)```"), "copy OutputGate.swift into CONTRIBUTING.md")
    }

    @Test func oneLineRegistersIt() throws {
        PEFTMethods.register(OutputGate.self)
        #expect(PEFTMethods.all.contains { $0 == OutputGate.self })
        #expect(try PEFTMethods.named("gate") == OutputGate.self)
        PEFTMethods.register(OutputGate.self)
        #expect(PEFTMethods.all.filter { $0 == OutputGate.self }.count == 1)
    }
}
