import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// Adapters that are written here do in Hugging Face PEFT what they do here.
///
/// The folders `Fixtures/interchange/*` were written by this file, with the environment variable
/// `PEFT_WRITE_FIXTURES` set, and then loaded in Python by `check_interchange.py`, which stored its logits.
@Suite struct InterchangeTests {
    struct Case: Sendable {
        let base: String
        let choice: MethodChoice

        init(base: String, configuration: LoRA.Configuration) {
            (self.base, choice) = (base, MethodChoice(LoRA.self, configuration))
        }

        init(base: String, choice: MethodChoice) { (self.base, self.choice) = (base, choice) }
    }

    /// Every method whose files Hugging Face PEFT reads gets here by itself.
    static let cases = ofLoRA.merging(ofMethods) { first, _ in first }.merging(ofTasks) { first, _ in first }

    /// Heads that are trained too, under Hugging Face's names of task and modules.
    private static let ofTasks: [String: Case] = {
        let adapters: [(String, String, MethodChoice)] = [
            ("roberta", "classification", MethodChoice(LoRA.self, .init(rank: 2, alpha: 4, targets: ["query"]))),
            ("distilbert", "regression", MethodChoice(IA3.self)),
            (
                "bert", "token-classification",
                MethodChoice(LoRA.self, .init(rank: 2, alpha: 4, targets: ["all-linear"]))
            ),
            ("bert", "embeddings", MethodChoice(LoRA.self, .init(rank: 2, alpha: 4, targets: ["value"]))),
            ("llama", "classification", MethodChoice(LoRA.self, .init(rank: 2, alpha: 4, targets: ["q_proj"]))),
        ]
        return Dictionary(
            adapters.map { ("task-\($0.0)-\($0.1)", Case(base: "\($0.0):\($0.1)", choice: $0.2)) },
            uniquingKeysWith: { first, _ in first })
    }()

    private static let ofMethods: [String: Case] = {
        // Hugging Face PEFT reads LoftQ's files with bitsandbytes on a GPU alone, and QA-LoRA's over GPTQ bases.
        let methods = PEFTMethods.builtIn.filter {
            $0.isReadableByHuggingFace
                && !["lora", "loftq", "qalora", "llama-adapter", "alora", "cpt"].contains($0.name)
        }
        let named = methods.map { ("method-\($0.name)", Case(base: "t5-v1.1", choice: .forTests($0))) }
        var pooled = QALoRA.Configuration()
        (pooled.rank, pooled.groupSize, pooled.pooling) = (2, 32, .sum)
        pooled.selection = TargetSelection(targets: ["q_proj", "down_proj"])
        let qalora = Case(base: "gptq/plain", choice: MethodChoice(QALoRA.self, pooled))
        return Dictionary(named + [("qalora-sum", qalora)], uniquingKeysWith: { first, _ in first })
    }()

    private static let ofLoRA: [String: Case] = {
        var patterns = LoRA.Configuration(
            rank: 3, alpha: 5.5, targets: ["q", "wi_0", "decoder.block.1.layer.0.SelfAttention.o"])
        patterns.rankPattern = ["wi_0": 1, "decoder\\.block\\.2\\..*\\.q": 4]
        patterns.alphaPattern = ["EncDecAttention.q": 7]
        patterns.dropout = 0.1
        var defaults = LoRA.Configuration()
        defaults.rank = 2
        var layers = LoRA.Configuration(rank: 2, alpha: 3, targets: ["all-linear"])
        layers.selection.layers = [1]
        layers.selection.excluded = ["wo"]
        layers.isRankStabilized = true
        var expression = LoRA.Configuration(rank: 2, alpha: 4, targets: [])
        expression.selection = TargetSelection(targets: [".*\\.block\\.0\\..*\\.(k|wo)"], isPattern: true)
        var tables = LoRA.Configuration(rank: 2, alpha: 4, targets: ["v", "embed_tokens"])
        tables.selection.modulesToSave = ModulesToSave(["lm_head"])
        var tokens = LoRA.Configuration(rank: 2, alpha: 4, targets: ["q"])
        tokens.extras.tokens.ids = [2, 5, 39, 80]
        tokens.extras.hasBias = true
        var slices = LoRA.Configuration(rank: 2, alpha: 4, targets: ["q", "k"])
        slices.extras.slices = ProjectionSlices([true, false, true])
        slices.isRankStabilized = true
        var fused = LoRA.Configuration(rank: 2, alpha: 4, targets: ["qkv_proj"])
        fused.extras.slices = ProjectionSlices([true, false, true])
        // In the first row's prompt and the second's target.
        var alora = MethodChoice(ALoRA.self)
        try? alora.set("invocation-tokens", to: "74")
        return [
            "slices-phi3": Case(base: "decoders/phi3", configuration: fused),
            "defaults-gemma2": Case(base: "decoders/gemma2", configuration: defaults),
            "prefix-gemma3": Case(base: "decoders/gemma3", choice: .forTests(PrefixTuning.self)),
            "method-llama-adapter": Case(base: "decoders/llama", choice: .forTests(AdaptionPrompt.self)),
            "method-cpt": Case(base: "decoders/llama", choice: .forTests(CPT.self)),
            "method-alora": Case(base: "decoders/llama", choice: alora),
            "prefix-phi3": Case(base: "decoders/phi3", choice: .forTests(PrefixTuning.self)),
            "tables": Case(base: "t5-v1.1", configuration: tables),
            "tokens": Case(base: "t5-tied-gated", configuration: tokens),
            "slices": Case(base: "t5-v1.1", configuration: slices),
            // Hugging Face's T5 has no output layer of its own that tokens wouldn't reach.
            "method-trainable_tokens": Case(base: "t5-tied-gated", choice: .forTests(TrainableTokens.self)),
            "patterns": Case(base: "t5-v1.1", configuration: patterns),
            "defaults": Case(base: "t5-v1.0", configuration: defaults),
            "all-linear": Case(
                base: "t5-half", configuration: LoRA.Configuration(rank: 1, alpha: 2, targets: ["all-linear"])),
            "layers": Case(base: "t5-tied-gated", configuration: layers),
            "expression": Case(base: "t5-v1.0", configuration: expression),
            "output-layer": Case(
                base: "t5-v1.1", configuration: LoRA.Configuration(rank: 2, alpha: 4, targets: ["v", "lm_head"])),
        ]
    }()

    private static let files = ["adapter_config.json", "adapter_model.safetensors"]
    private static let committed = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Fixtures/interchange")

    /// An adapter whose numbers are the same on every machine: multiples of 1/8192.
    private func adapter(_ name: String) throws -> Adapter {
        let item = try #require(Self.cases[name])
        let adapter = try Adapter(item.choice, on: Models.load(item.base))
        var next = 1
        for parameter in adapter.parameters {
            let values = (0..<parameter.tensor.count).map { _ -> Float in
                next = (next * 1_103_515_245 + 12_345) % 2_147_483_648
                return Float(next / 65_536 % 4_096 - 2_048) / 8_192
            }
            parameter.tensor.copy(from: Tensor(values, shape: parameter.tensor.shape))
        }
        return adapter
    }

    @Test(arguments: cases.keys.sorted()) func filesAreTheOnesThatPythonRead(name: String) throws {
        let adapter = try adapter(name)
        let base = try #require(Self.cases[name]).base
        if ProcessInfo.processInfo.environment["PEFT_WRITE_FIXTURES"] != nil {
            try adapter.save(to: Self.committed.appendingPathComponent(name), base: base)
        }
        try withTemporaryFolder { folder in
            let written = folder.appendingPathComponent(name)
            try adapter.save(to: written, base: base)
            #expect(try FileManager.default.contentsOfDirectory(atPath: written.path).sorted() == Self.files)
            for file in Self.files {
                let (own, expected) = (
                    written.appendingPathComponent(file), Self.committed.appendingPathComponent("\(name)/\(file)")
                )
                let drawn = [
                    "p-tuning", "vera", "pvera", "randlora", "delora", "cartridge", "tinylora", "mica", "lora-xs",
                ].map { "method-\($0)" }
                if drawn.contains(name), file.hasSuffix(".safetensors") {
                    // What P-tuning stores comes out of a network, VeRA's projections and a cartridge's frozen tokens are
                    // numbers that libtorch draws, DeLoRA stores norms, TinyLoRA, MiCA and LoRA-XS factors of the base: sums and draws
                    // differ in the last bits between processors with and without fused multiply-add.
                    try expectSameLayout(SafetensorsFile(own), SafetensorsFile(expected))
                } else {
                    #expect(try Data(contentsOf: own) == Data(contentsOf: expected), "\(file)")
                }
            }
        }
    }

    /// The same names, shapes and types in the same order, and numbers that differ by rounding alone.
    private func expectSameLayout(_ own: SafetensorsFile, _ expected: SafetensorsFile) throws {
        #expect(own.entries.keys.sorted() == expected.entries.keys.sorted() && own.metadata == expected.metadata)
        for name in expected.entries.keys {
            let (a, b) = (try own.tensor(name), try expected.tensor(name))
            #expect(a.shape == b.shape && a.dtype == b.dtype)
            #expect(relativeDifference(a, b) < 1e-6, "\(name)")
        }
    }

    @Test(arguments: cases.keys.sorted()) func logitsAreThoseOfPython(name: String) throws {
        let adapter = try adapter(name)
        let expected = try SafetensorsFile(Self.committed.appendingPathComponent("\(name).expected.safetensors"))
        let rows = try JSON.parse(Data(#require(expected.metadata["rows"]).utf8), name: name).rows
        let logits = try adapter.model.scores(rows)
        let difference = relativeDifference(logits, try expected.tensor("logits"))
        #expect(difference < 1e-4, "\(difference)")
        try adapter.deactivate()
        #expect(relativeDifference(try adapter.model.scores(rows), logits) > 1e-2)
    }
}
