import Testing

@testable import Support

@Suite struct NearestNameTests {
    @Test(arguments: [
        ("lorra", "lora"), ("LORA", "lora"), ("fulll", "full"), ("prefx", "prefix"), ("adaptre", "adapter"),
        ("q", "q"),
    ]) func isTheClosest(name: String, expected: String) {
        #expect(nearestName(to: name, in: ["full", "lora", "prefix", "adapter", "q", "qa-lora"]) == expected)
    }

    @Test func isNeverAWildGuess() {
        #expect(nearestName(to: "xyzzy", in: ["lora", "full"]) == nil)
        #expect(nearestName(to: "", in: ["lora"]) == nil)
        #expect(nearestName(to: "lora", in: [String]()) == nil)
        #expect(nearestName(to: "", in: [""]) == "")
        // Of equally close ones the first.
        #expect(nearestName(to: "cat", in: ["bat", "hat"]) == "bat")
    }

    @Test func errorsReadAsOneLine() {
        #expect(PEFTError("a is wrong", remedy: "use b").description == "a is wrong; use b")
        #expect(PEFTError("a is wrong").description == "a is wrong")
    }
}
