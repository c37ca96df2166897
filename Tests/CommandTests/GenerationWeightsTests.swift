import Foundation
import PEFTSupport
import TestSupport
import Testing

/// The formats in which `peft generate` keeps weights unless another is given.
@Suite(.serialized)
struct GenerationWeightsTests {
    private func text(_ program: Program, _ options: [String]) throws -> String {
        let result = try program.run(["generate", "--no-chat", "--max-new-tokens", "12"] + options + ["Tom"])
        #expect(result.status == 0, "\(result.error)")
        return result.output
    }

    /// A quantized Llama whose output layer is quantized, too.
    private let packed = Checkout.root.appendingPathComponent("Tests/LanguageModelsTests/Fixtures/gguf/llama.gguf")
        .path

    /// 16-bit and packed weights give the texts that their numbers in fp32 give.
    @Test(arguments: ["16 bits", "packed"]) func textsAreThoseOfTheNumbers(format: String) throws {
        let program = try Program.withLlama(rows: 2)
        defer { program.remove() }
        if format == "16 bits" {
            let made = try program.run(["quantize", "--model", "llama", "--to", "gguf-f16", "--output", "base.gguf"])
            #expect(made.status == 0, "\(made.error)")
        }
        let model = ["--model", format == "packed" ? packed : "base.gguf"]
        let plain = try text(program, model)
        #expect(try text(program, model + ["--weights", "fp32", "--embedding-weights", "fp32"]) == plain)
        #expect(try text(program, model + ["--weights", "stored"]) == plain)
    }

    /// An adapter with a projection of its own, which is stored in 16 bits in the base.
    @Test func savedProjectionsReplaceSixteenBitOnes() throws {
        let program = try Program.withLlama(rows: 4)
        defer { program.remove() }
        let made = try program.run(["quantize", "--model", "llama", "--to", "gguf-f16", "--output", "base.gguf"])
        #expect(made.status == 0, "\(made.error)")
        let trained = try program.run([
            "train", "--model", "base.gguf", "--data", "rows.jsonl", "--prompt", "{q}", "--target", "{a}", "--steps",
            "2",
            "--lr", "0.1", "--modules-to-save", "down_proj", "--output", "adapter", "--quiet",
        ])
        #expect(trained.status == 0, "\(trained.error)")
        let model = ["--model", "base.gguf", "--adapter", "adapter"]
        let own = try text(program, model)
        #expect(try text(program, model + ["--weights", "fp32"]) == own)
        #expect(try text(program, ["--model", "base.gguf"]) != own)
    }

    /// An adapter with an output layer of its own, as Hugging Face PEFT saves it, replaces that of a GGUF file.
    @Test func savedOutputLayersReplacePackedOnes() throws {
        let program = try Program.withLlama(rows: 4)
        defer { program.remove() }
        let trained = try program.run([
            "train", "--model", packed, "--data", "rows.jsonl", "--prompt", "{q}", "--target", "{a}", "--steps", "2",
            "--lr", "0.1", "--modules-to-save", "lm_head", "--output", "adapter", "--quiet",
        ])
        #expect(trained.status == 0, "\(trained.error)")
        // Without the record of this program.
        try FileManager.default.removeItem(at: program.folder.appendingPathComponent("adapter/training.json"))
        let model = ["--model", packed]
        let own = try text(program, model + ["--adapter", "adapter"])
        #expect(try text(program, model + ["--adapter", "adapter", "--weights", "fp32"]) == own)
        #expect(try text(program, model + ["--adapter", "adapter", "--merge"]) == own)
        #expect(try text(program, model) != own)
    }
}
