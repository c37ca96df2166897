import Testing

@testable import PEFTSupport

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

    /// A transposition is one mistake; what shares only its length is none.
    @Test(
        arguments: [
            ("loar", "lora"), ("laro", "lora"), ("rnak", "rank"), ("dpo", nil), ("rank", "rank"), ("lro", nil),
            ("num-train-epochs", nil), ("batch", "batch-size"), ("lorra-alpha", "lora-alpha"), ("tlak", nil),
            ("of", "oft"), ("lora_alph", "lora-alpha"), ("batch_foo", nil), ("wi_0", "wi"),
        ] as [(String, String?)]) func transpositionsAndLimits(name: String, expected: String?)
    {
        let names = ["mpt", "lokr", "lora", "rank", "num-layers", "batch-size", "lora-alpha", "oft", "wi"]
        #expect(nearestName(to: name, in: names) == expected)
    }

    @Test func errorsReadAsOneLine() {
        #expect(PEFTError("a is wrong", remedy: "use b").description == "a is wrong; use b")
        #expect(PEFTError("a is wrong").description == "a is wrong")
    }
}
