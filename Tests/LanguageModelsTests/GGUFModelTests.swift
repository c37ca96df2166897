import Foundation
import PEFTSupport
import PEFTTokenizers
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// Models and tokenizers of GGUF files compute what transformers, SentencePiece and tokenizers compute of the same
/// numbers and pieces (`make_gguf_models.py`).
@Suite struct GGUFModelTests {
    static let names = ["llama", "llama3", "qwen2", "qwen3", "gemma", "gemma2", "gemma3"]

    private static func fixture(_ name: String) throws -> URL {
        try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/gguf/\(name)")
    }

    private static func expected(_ name: String) throws -> JSON {
        try #require(try JSON.read(fixture("expected.json"))[name])
    }

    /// The scores of the last four positions.
    private static func difference(_ model: any LanguageModel, _ name: String) throws -> Double {
        let row = try #require(try expected(name)["rows"]).integers
        let batch = model.batch([(Array(row.prefix(8)), Array(row.dropFirst(8)) + [0])], device: .cpu)
        let logits = try withTorchErrors { withoutGradients { model.logits(batch) } }
        let golden = try SafetensorsFile(fixture("logits.safetensors")).tensor(name)
        let own = logits.narrowed(axis: 0, (logits.dim(0) - 4)..<logits.dim(0))
        return relativeDifference(own, golden)
    }

    @Test(arguments: names) func logitsEqualTransformers(name: String) throws {
        let folder = try ModelFolder(Self.fixture(name + ".gguf"))
        #expect(folder.isGGUF)
        let model = try folder.load()
        #expect(try Self.difference(model, name) < 1e-4)
        let packed = model.namedModules().count { ($0.module as? Linear)?.weight is GroupQuantizedWeight }
        // Those that are F16 are numbers.
        #expect(packed == ["llama": 12, "llama3": 0, "qwen2": 12, "qwen3": 12, "gemma3": 49][name] ?? 14)
        #expect(folder.isQuantized == (packed > 0))
        // An output layer of its own stays packed for generation.
        let generating = try folder.keepingStoredWeights().load()
        let isPacked = generating.namedModules().contains {
            $0.path == generating.outputLayer && ($0.module as? Linear)?.weight is GroupQuantizedWeight
        }
        #expect(isPacked == (name == "llama"))
        #expect(try Self.difference(generating, name) < 1e-4)
        // As numbers they are the same.
        let wide = try folder.with(weights: .float32).load()
        #expect(!wide.namedModules().contains { ($0.module as? Linear)?.weight.isQuantized == true })
        #expect(try Self.difference(wide, name) < 1e-4)
        #expect(try folder.with(weights: WeightStorage("nf4")).load().hasRoundedWeights)
    }

    @Test(arguments: names) func tokensEqualTheReferences(name: String) throws {
        let file = try Self.fixture(name + ".gguf")
        let tokenizer = try Tokenizer.load(folder: file)
        let rows = try Self.expected(name)["ids"]?.array ?? []
        #expect(rows.count > 10)
        for row in rows {
            let text = try #require(row.array?.first?.string)
            let ids = (row.array?.last?.array ?? []).compactMap(\.int)
            #expect(tokenizer.encode(text: text) == ids, "\(text)")
        }
        #expect(tokenizer.eosTokenID != nil)
        let template = try ChatTemplate.load(folder: file)
        #expect(template.template.source.hasPrefix("{% for m in messages %}"))
        #expect(template.specialTokens["eos_token"] == "</s>")
    }

    /// Some ways of cutting words have several names.
    @Test(arguments: [("qwen3", "gpt-2", "phi-2"), ("gemma3", "smollm", "refact")])
    func wordsHaveOtherNames(name: String, usual: String, other: String) throws {
        try withTemporaryFolder { folder in
            var data = try Data(contentsOf: Self.fixture(name + ".gguf"))
            data.replaceSubrange(try #require(data.range(of: Data(usual.utf8))), with: Data(other.utf8))
            let file = folder.appendingPathComponent("a.gguf")
            try data.write(to: file)
            let (a, b) = (try Tokenizer.load(folder: Self.fixture(name + ".gguf")), try Tokenizer.load(folder: file))
            for text in ["I'LL don't  12 Äpfel", "x<|end|>y", "中文 🙂\n\n"] {
                #expect(a.encode(text: text) == b.encode(text: text))
            }
            #expect(throws: PEFTError.self) {
                try withOther(data, other, String(other.reversed()), in: folder) { try Tokenizer.load(folder: $0) }
            }
        }
    }

    private func withOther<Result>(
        _ data: Data, _ old: String, _ new: String, in folder: URL, _ body: (URL) throws -> Result
    ) throws -> Result {
        var data = data
        data.replaceSubrange(try #require(data.range(of: Data(old.utf8))), with: Data(new.utf8))
        let file = folder.appendingPathComponent("b.gguf")
        try data.write(to: file)
        return try body(file)
    }

    /// Saved as a folder, model and tokenizer are the same.
    @Test(arguments: ["llama", "qwen2", "gemma2"]) func foldersAreTheSame(name: String) throws {
        let file = try Self.fixture(name + ".gguf")
        let model = try ModelFolder(file).with(weights: .float32).load()
        let copy = FileManager.default.temporaryDirectory.appendingPathComponent("gguf-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: copy) }
        try model.save(to: copy, copying: Tokenizer.files(in: file))
        let again = try ModelFolder(copy)
        #expect(!again.isGGUF && !again.isQuantized)
        #expect(try Self.difference(again.load(), name) < 1e-4)
        let (a, b) = (try Tokenizer.load(folder: file), try Tokenizer.load(folder: copy))
        let rows = try #require(try Self.expected(name)["ids"]?.array)
        #expect(!rows.isEmpty)
        for row in rows {
            let text = row.array?.first?.string ?? ""
            #expect(a.encode(text: text) == b.encode(text: text))
        }
        #expect(
            try ChatTemplate.load(folder: copy).template.source == ChatTemplate.load(folder: file).template.source)
    }

    @Test func filesInFoldersAreFound() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("a.GGUF")
            try FileManager.default.copyItem(at: Self.fixture("llama.gguf"), to: file)
            #expect(try ModelFolder(folder).url.lastPathComponent == "a.GGUF")
            #expect(try ModelLocator.folder(file.path).path == file.path)
            #expect(try ModelFolder(folder).weightBytes > 10_000)
            try FileManager.default.copyItem(at: file, to: folder.appendingPathComponent("b.gguf"))
            let error = try #require(throws: PEFTError.self) { try ModelFolder(folder) }
            #expect(error.problem.contains("2 GGUF files"))
        }
    }

    // MARK: Refusals

    /// The llama file with every place of a text replaced by one as long.
    private func withReplaced<Result>(_ old: String, _ new: String, _ body: (URL) throws -> Result) throws -> Result {
        try withTemporaryFolder { folder in
            var data = try Data(contentsOf: Self.fixture("llama.gguf"))
            while let range = data.range(of: Data(old.utf8)) { data.replaceSubrange(range, with: Data(new.utf8)) }
            let file = folder.appendingPathComponent("a.gguf")
            try data.write(to: file)
            return try body(file)
        }
    }

    @Test(arguments: [
        ("\u{5}\0\0\0\0\0\0\0llama", "\u{5}\0\0\0\0\0\0\0mamba", "'mamba', which is not supported"),
        ("general.architecture", "general.architectvre", "no 'general.architecture'"),
        ("llama.embedding_length", "llama.embedding_lenght", "'llama.embedding_length' is missing"),
        ("blk.1.ffn_up", "blk.1.ffn_op", "lacks 1 of the model's tensors"),
        ("blk.1.attn_norm", "blk.7.attn_norm", "lacks 1 of the model's tensors"),
        ("token_embd.weight", "token_embd.waight", "no 'token_embd.weight'"),
    ]) func otherModelsAreRefusedByName(old: String, new: String, words: String) throws {
        try withReplaced(old, new) { file in
            let error = try #require(throws: PEFTError.self) { try ModelFolder(file).load() }
            #expect(error.problem.contains(words), "\(error.problem)")
        }
    }

    @Test(arguments: [
        ("tokenizer.ggml.model", "tokenizer.ggml.modal", "no tokenizer"),
        ("tokenizer.ggml.scores", "tokenizer.ggml.skores", "'tokenizer.ggml.scores'"),
        ("tokenizer.ggml.tokens", "tokenizer.ggml.tokons", "'tokenizer.ggml.tokens'"),
    ]) func otherTokenizersAreRefusedByName(old: String, new: String, words: String) throws {
        try withReplaced(old, new) { file in
            let error = try #require(throws: PEFTError.self) { try Tokenizer.load(folder: file) }
            #expect(error.problem.contains(words), "\(error.problem)")
        }
    }

    /// Whatever happens to the bytes of the header, the answer is a model or an error.
    @Test func mutationsEndInErrors() throws {
        let original = [UInt8](try Data(contentsOf: Self.fixture("llama.gguf")))
        var random = SeededRandom(seed: 11)
        var (intact, refused) = (0, 0)
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("a.gguf")
            for round in 0..<150 {
                var bytes = original
                for _ in 0...random.below(3) {
                    // Settings before the tokenizer and after it, and tensors.
                    let place = round.isMultiple(of: 2) ? random.below(900) : random.below(17_000)
                    bytes[place] = round.isMultiple(of: 3) ? bytes[place] ^ 1 : UInt8(random.below(256))
                }
                try Data(bytes).write(to: file)
                do {
                    _ = try Tokenizer.load(folder: file)
                    _ = try ModelFolder(file).load()
                    intact += 1
                } catch is PEFTError { refused += 1 }
            }
        }
        #expect(intact > 0 && refused > 0)
    }
}
