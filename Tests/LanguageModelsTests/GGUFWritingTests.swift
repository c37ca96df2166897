import Foundation
import PEFTSupport
import PEFTTokenizers
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// Written GGUF files read back as the same model and tokenizer. (`check_gguf.py` reads them with gguf-py and
/// transformers.)
@Suite struct GGUFWritingTests {
    private static func fixture(_ name: String) throws -> URL {
        try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/\(name)")
    }

    private static func logits(_ model: any LanguageModel) throws -> Tensor {
        let batch = model.batch([((0..<9).map { 2 + ($0 * 37) % 80 }, [5, 33, 12, 1])], device: .cpu)
        return try withTorchErrors { withoutGradients { model.logits(batch) } }
    }

    private static func difference(_ a: any LanguageModel, _ b: any LanguageModel) throws -> Double {
        try relativeDifference(logits(a), logits(b))
    }

    private static func load(_ name: String) throws -> any LanguageModel {
        if name.hasPrefix("made/") { return try made(String(name.dropFirst("made/".count))) }
        guard name.hasPrefix("decoders/") else { return try ModelFolder(fixture(name)).load() }
        return try DecoderFixture(name: String(name.dropFirst("decoders/".count))).load()
    }

    /// Random models of families whose fixtures have layers that llama.cpp lacks.
    private static func made(_ name: String) throws -> any LanguageModel {
        let changes: [String: [String: JSON]] = [
            "qwen2_moe": ["decoder_sparse_step": 1, "norm_topk_prob": false],
            "qwen3_moe": ["mlp_only_layers": []], "olmoe": ["num_key_value_heads": 4],
            "cohere2": ["sliding_window_pattern": 4, "num_hidden_layers": 5],
            "falcon-new-one-norm": ["bias": false], "gpt_oss": ["swiglu_limit": 7.0],
            "granitemoehybrid-dense": ["hidden_act": "silu", "mamba_proj_bias": false, "mamba_conv_bias": true],
            "olmo3": [
                "layer_types": .null, "num_hidden_layers": 5, "rope_scaling": .null,
                "rope_parameters": [
                    "full_attention": ["rope_type": "linear", "factor": 4.0, "rope_theta": 300.0],
                    "sliding_attention": ["rope_type": "default", "rope_theta": 300.0],
                ],
            ],
            "phi-head-norms": ["hidden_act": "gelu_new"], "starcoder2-unbiased": ["hidden_act": "gelu_pytorch_tanh"],
            "gpt-neox-new-keys": ["hidden_act": "gelu"], "deepseek_v2-groups": ["rope_scaling": .null],
            "deepseek_v2": ["q_lora_rank": .null, "num_hidden_layers": 26],
        ]
        let file = try fixture("decoders/\(name)/config.json")
        let fields = (try JSON.read(file).object ?? [:]).merging(changes[name] ?? [:]) { $1 }
        let model = try ModelRegistry.outline(.object(fields), file: file.path)
        var random = SeededRandom(seed: 3)
        for (_, parameter) in model.parameters() {
            let value = Tensor.zeros(parameter.tensor.shape)
            value.fillNormal(deviation: 0.3, from: &random)
            parameter.tensor = value
        }
        return model
    }

    /// Families and kinds of positions of the fixtures, written as numbers.
    @Test(arguments: [
        "llama", "decoders/llama", "decoders/mistral-all", "decoders/llama-linear", "decoders/llama-llama3",
        "decoders/llama-yarn", "qwen2", "qwen3", "decoders/gemma",
        "decoders/arcee", "decoders/seed_oss", "decoders/granite", "decoders/granite-biases",
        "decoders/smollm3-default", "decoders/olmo2", "decoders/ernie4_5",
        "decoders/mixtral", "made/olmoe", "decoders/granitemoe", "decoders/glm4", "decoders/glm4-whole",
        "decoders/hunyuan_v1_dense", "made/qwen2_moe", "made/qwen3_moe", "made/cohere2",
        "decoders/gpt-neox-sequential", "made/falcon-new-one-norm", "made/gpt_oss", "made/olmo3", "made/deepseek_v2",
        "made/granitemoehybrid-dense",
    ]) func modelsSurvive(name: String) throws {
        let model = try Self.load(name)
        try withTemporaryFolder { temporary in
            let file = temporary.appendingPathComponent("a.gguf")
            try model.writeGGUF(to: file, type: .f32, tokenizer: [], name: "a")
            #expect(try Self.difference(ModelFolder(file).load(), model) < 1e-5)
            try model.writeGGUF(to: file, type: .f16, tokenizer: [], name: "a")
            #expect(try Self.difference(ModelFolder(file).load(), model) < 1e-2)
        }
    }

    /// Files of all families, read, written and read again: the same scores, bit for bit the same numbers in Q8_0.
    @Test(arguments: GGUFModelTests.names) func filesSurvive(name: String) throws {
        let source = try Self.fixture("gguf/\(name).gguf")
        let model = try ModelFolder(source).load()
        try withTemporaryFolder { temporary in
            let file = temporary.appendingPathComponent("a.gguf")
            let size = model.configuration["vocab_size"]?.int ?? 0
            let tokenizer = try GGUFVocabulary.settings(folder: source, size: size)
            try model.writeGGUF(to: file, type: .f32, tokenizer: tokenizer, name: "a")
            #expect(try Self.difference(ModelFolder(file).load(), model) < 1e-5)
            try model.writeGGUF(to: file, type: .q8_0, tokenizer: tokenizer, name: "a")
            let bytes = try ModelFolder(file).load()
            #expect(bytes.namedModules().contains { ($0.module as? Linear)?.weight.isQuantized == true })
            #expect(try Self.difference(bytes, model) < 0.1)
            try bytes.writeGGUF(to: file, type: .q8_0, tokenizer: tokenizer, name: "a")
            #expect(try Self.difference(ModelFolder(file).load(), bytes) < 1e-5)
            try model.writeGGUF(to: file, type: .q4_0, tokenizer: tokenizer, name: "a")
            #expect(try Self.difference(ModelFolder(file).load(), model) < 0.9)
            let mixture = try #require(GGUFFormat.all.first { $0.name == "Q5_K_M" })
            try model.writeGGUF(to: file, type: mixture, tokenizer: tokenizer, name: "a")
            #expect(try Self.difference(ModelFolder(file).load(), model) < 0.5)
            #expect(try Self.sameTokens(source, file) > 5)
        }
    }

    /// Tokenizers of folders, which the files above were made into, are the same in a file again.
    @Test(arguments: GGUFModelTests.names) func tokenizersSurvive(name: String) throws {
        let source = try Self.fixture("gguf/\(name).gguf")
        let model = try ModelFolder(source).load()
        try withTemporaryFolder { temporary in
            let folder = temporary.appendingPathComponent("folder")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            for file in try Tokenizer.files(in: source) { try file.write(into: folder) }
            let size = (model.configuration["vocab_size"]?.int ?? 0) + 3
            let settings = try GGUFVocabulary.settings(folder: folder, size: size)
            let tokens = settings.first { $0.0 == "tokenizer.ggml.tokens" }?.1.list?.strings
            #expect(tokens?.count == size)
            #expect(tokens?.last == "[PAD\(size - 1)]")
            let file = temporary.appendingPathComponent("a.gguf")
            try model.writeGGUF(to: file, type: .f16, tokenizer: settings, name: "a")
            #expect(try Self.sameTokens(source, file) > 5)
            #expect(
                try ChatTemplate.load(folder: file).template.source
                    == ChatTemplate.load(folder: source).template.source)
            #expect(throws: PEFTError.self) { try GGUFVocabulary.settings(folder: folder, size: 10) }
        }
    }

    /// A tokenizer without a token but one with a negative id.
    @Test func tokenizersWithoutTokensAreErrors() throws {
        try withTemporaryFolder { folder in
            let json: JSON = [
                "version": "1.0", "added_tokens": [["id": -1, "content": "<s>", "special": true]],
                "model": ["type": "BPE", "vocab": [:], "merges": []],
            ]
            try json.text().write(
                to: folder.appendingPathComponent("tokenizer.json"), atomically: true, encoding: .utf8)
            #expect(throws: PEFTError.self) { try GGUFVocabulary.settings(folder: folder, size: 10) }
        }
    }

    private static func sameTokens(_ a: URL, _ b: URL) throws -> Int {
        let (x, y) = (try Tokenizer.load(folder: a), try Tokenizer.load(folder: b))
        let texts = [
            "", "Hello, wörld! 123456", "  two  spaces ", "x<|end|>y", "I'LL don't", "中文 🙂\n\n",
            "A small model reads",
        ]
        for text in texts { #expect(x.encode(text: text) == y.encode(text: text), "\(text)") }
        return texts.count
    }

    /// Metadata with which llama.cpp computes what a family doesn't is refused on reading.
    @Test(arguments: [
        ("decoders/granite", "granite.rope.scaling.finetuned", GGUFValue.flag(false), "no RoPE"),
        ("decoders/bloom", "bloom.attention.head_count_kv", .integer(2), "2 key-value heads and 6 heads"),
        ("decoders/gpt-neox", "gptneox.attention.head_count_kv", .integer(1), "1 key-value heads and 2 heads"),
        ("made/deepseek_v2", "deepseek2.expert_group_used_count", .integer(2), "from groups"),
        ("made/deepseek_v2", "deepseek2.attention.key_length_mla", .integer(4), "4 of 4 head dimensions"),
    ]) func otherFilesAreRefused(name: String, key: String, value: GGUFValue, words: String) throws {
        try withTemporaryFolder { folder in
            let (plain, changed) = (folder.appendingPathComponent("a.gguf"), folder.appendingPathComponent("b.gguf"))
            try Self.load(name).writeGGUF(to: plain, type: .f32, tokenizer: [], name: "a")
            let file = try GGUFFile(plain)
            let contents = try file.entries.map { name, entry in
                let tensor = try file.tensor(name)
                return GGUFFile.Content(name, entry.shape, .f32) { tensor }
            }
            let settings = file.settings.filter { $0.key != key }.map { ($0.key, $0.value) }
            _ = try ModelFolder(plain)
            try GGUFFile.write(settings + [(key, value)], contents, to: changed)
            let error = try #require(throws: PEFTError.self) { try ModelFolder(changed) }
            #expect(error.problem.contains(words), "\(error.problem)")
        }
    }

    @Test func otherModelsAreRefusedByName() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("a.gguf")
            for (name, word) in [
                ("t5-v1.1", "t5"), ("gpt2", "gpt2"), ("decoders/mistral", "window"),
                ("decoders/llama-biases", "SiLU"),
                ("decoders/llama-dynamic", "'dynamic'"),
                ("decoders/arcee-silu", "squared ReLU"), ("decoders/arcee-biases", "bias"),
                ("decoders/smollm3", "every fourth"), ("decoders/olmo2-biases", "tied"), ("decoders/phi3", "phi3"),
                ("decoders/qwen3_moe", "dense network"), ("decoders/olmoe-clipped", "normalized"),
                ("decoders/olmoe", "fewer key-value heads"),
                ("decoders/hunyuan_v1_dense-biases", "bias"), ("decoders/cohere2", "every 4th"),
                ("made/phi-head-norms", "norms"), ("decoders/phi-head-norms", "activation"),
                ("decoders/starcoder2", "window"),
                ("made/starcoder2-unbiased", "no biases"), ("made/gpt-neox-new-keys", "no biases"),
                ("decoders/bloom-norm-residual", "connected"), ("decoders/falcon-multi-query-alibi", "ALiBi"),
                ("decoders/falcon-new-one-norm", "biases"), ("decoders/olmo3", "every 4th"),
                ("decoders/gpt_oss", "clamped"), ("made/deepseek_v2-groups", "topk_method"),
                ("decoders/deepseek_v3", "'yarn'"), ("decoders/deepseek_v3-direct", "biases"),
                ("decoders/gptj", "gptj"),
                ("decoders/lfm2-biases", "conv_bias"), ("decoders/granitemoehybrid-dense", "SiLU"),
                ("decoders/granitemoehybrid-loss", "time_step_limit"),
            ] {
                let model = try Self.load(name)
                let error = try #require(throws: PEFTError.self) {
                    try model.writeGGUF(to: file, type: .f32, tokenizer: [], name: "a")
                }
                #expect(error.problem.contains(word), "\(error.problem)")
            }
            #expect(!FileManager.default.fileExists(atPath: file.path))
        }
    }
}
