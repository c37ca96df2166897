import Testing
import Torch

@testable import LanguageModels

/// Each tensor of a GGUF file has the type that llama.cpp's quantizer gives it.
@Suite struct GGUFFormatTests {
    private static let names =
        (0..<16).flatMap { ["blk.\($0).attn_v.weight", "blk.\($0).ffn_down.weight", "blk.\($0).attn_q.weight"] }
        + ["token_embd.weight"]

    private static func types(
        _ format: String, part: String, width: Int = 512, names: [String] = names, experts: Int = 0
    ) throws -> [GGUFType] {
        let format = try #require(GGUFFormat.all.first { $0.name == format })
        let model = GGUFFormat.Model(names: names, experts: experts)
        return names.filter { $0.contains(part) }.map { format.type(of: $0, shape: [8, width], in: model) }
    }

    /// Layers 0, 1, 4, 7, 10, 13, 14 and 15 of 16.
    @Test(arguments: [("Q4_K_M", GGUFType.q4_K), ("Q5_K_M", .q5_K)]) func someLayersAreFiner(
        name: String, usual: GGUFType
    ) throws {
        let finer: Set = [0, 1, 4, 7, 10, 13, 14, 15]
        let expected = (0..<16).map { finer.contains($0) ? GGUFType.q6_K : usual }
        #expect(try Self.types(name, part: "attn_v") == expected)
        #expect(try Self.types(name, part: "ffn_down") == expected)
        #expect(try Self.types(name, part: "attn_q").allSatisfy { $0 == usual })
    }

    @Test func smallMixturesHaveFirstLayers() throws {
        let values = try Self.types("Q4_K_S", part: "attn_v")
        #expect(values == (0..<16).map { $0 < 4 ? .q5_K : .q4_K })
        let down = try Self.types("Q4_K_S", part: "ffn_down")
        #expect(down == (0..<16).map { $0 < 2 ? .q5_K : .q4_K })
        #expect(try Self.types("Q5_K_S", part: "attn_v").allSatisfy { $0 == .q5_K })
    }

    /// A tied table is the output layer, too.
    @Test func outputLayersHaveMoreBits() throws {
        #expect(try Self.types("Q4_K_M", part: "token_embd") == [.q6_K])
        let names = Self.names + ["output.weight"]
        #expect(try Self.types("Q4_K_M", part: "token_embd", names: names) == [.q4_K])
        #expect(try Self.types("Q4_K_M", part: "output", names: names) == [.q6_K])
        #expect(try Self.types("Q4_0", part: "token_embd", names: names) == [.q8_0])
        #expect(try Self.types("F16", part: "token_embd") == [.f16])
    }

    @Test func rowsThatAreNoBlocksGetOtherTypes() throws {
        #expect(try Self.types("Q4_K_M", part: "attn_q", width: 96).allSatisfy { $0 == .q5_0 })
        #expect(try Self.types("Q5_K_M", part: "attn_q", width: 96).allSatisfy { $0 == .q5_1 })
        #expect(try Self.types("Q6_K", part: "attn_q", width: 96).allSatisfy { $0 == .q8_0 })
        #expect(try Self.types("Q4_K_M", part: "attn_q", width: 40).allSatisfy { $0 == .f16 })
    }

    @Test func eightExpertsHaveFinerAttention() throws {
        #expect(try Self.types("Q4_K_M", part: "attn_v", experts: 8).allSatisfy { $0 == .q8_0 })
    }
}
