import Foundation
import PEFTSupport
import Testing
import Torch
import TorchNN

@testable import LanguageModels
@testable import PEFT

/// Without `--targets`, a method adapts what Hugging Face PEFT's adapts (`make_default_targets.py` wrote its tables).
@Suite struct FamilyDefaultsTests {
    /// A small model of each type.
    static let models = [
        "t5": ["t5-v1.0", "t5-v1.1"], "mt5": ["decoders/mt5"], "llama": ["llama", "decoders/llama-biases"],
        "qwen2": ["qwen2", "decoders/qwen2"], "qwen3": ["qwen3"], "gemma": ["decoders/gemma"],
        "gemma2": ["decoders/gemma2"], "gemma3_text": ["decoders/gemma3"], "phi3": ["decoders/phi3"],
        "gpt2": ["gpt2"], "mistral": ["decoders/mistral"], "bert": ["heads/bert"], "roberta": ["heads/roberta"],
        "gpt_neox": ["decoders/gpt-neox"], "opt": ["decoders/opt"], "bloom": ["decoders/bloom"],
        "phi": ["decoders/phi"], "stablelm": ["decoders/stablelm"], "gptj": ["decoders/gptj"],
        "mixtral": ["decoders/mixtral"], "nemotron_h": ["decoders/nemotron_h"],
        "falcon": ["decoders/falcon", "decoders/falcon-new", "decoders/falcon-alibi"],
    ]

    /// Encoder-decoders like BART, and further encoders.
    static let furtherModels = [
        "bart": ["decoders/bart"], "electra": ["heads/electra"], "deberta-v2": ["heads/deberta-v2"],
    ]

    static let cases = models.merging(furtherModels) { $1 }.flatMap { family, bases in
        bases.map { (family: family, base: $0) }
    }

    private static func table() throws -> JSON {
        let file = try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/defaults.json")
        return try JSON.read(file)
    }

    /// What a family declares for each of Hugging Face's tables, most of which are LoRA's.
    private static func declared(_ targets: AdapterTargets, _ methods: [String]) -> [String: Set<String>] {
        var names = Dictionary(uniqueKeysWithValues: methods.map { ($0, targets.lora.names) })
        for method in ["vera", "pvera", "shira"] { names[method] = targets.veraOrLoRA.names }
        (names["adalora"], names["ia3"]) = (targets.adaLoRA.names, targets.ia3.names)
        (names["ia3_feedforward"], names["layernorm"]) = (targets.ia3FeedForward, Array(targets.norms))
        return names.mapValues { Set($0) }
    }

    /// Differences from Hugging Face's tables, which `docs/methods.md` explains. Without it, `dense` would match RoBERTa's
    /// classification head, too, which Hugging Face PEFT leaves out otherwise.
    private static let differences = [
        "roberta.adalora": Set(["query", "key", "value", "intermediate.dense", "output.dense"]),
        // The experts' projections are no modules since version 5 of transformers.
        "mixtral.ia3": ["k_proj", "v_proj"], "mixtral.ia3_feedforward": [],
    ]

    /// Families that none of its tables has, so that they have defaults here alone.
    private static let added = Set([
        "phi3", "distilbert", "arcee", "seed_oss", "granite", "smollm3", "olmo2", "olmo3", "ernie4_5",
        "hunyuan_v1_dense", "glm4", "cohere2", "ministral3", "gemma3", "mistral3", "qwen2_5_vl", "qwen3_vl",
        "starcoder2", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "glm4_moe", "deepseek_v2", "deepseek_v3",
        "llama4_text", "gpt_oss", "qwen3_5_text", "qwen3_5", "qwen3_5_moe_text", "qwen3_5_moe", "qwen3_next",
        "gemma4_text", "gemma3n_text", "gemma3n", "lfm2", "lfm2_moe", "granitemoehybrid",
        "falcon_h1",
        // Its tables have a regular expression that matches the text part's q_proj and v_proj.
        "gemma4",
    ])

    /// Families that some of its tables lack.
    private static let addedTo = [
        "adalora": Set(["mistral", "mixtral", "xlm-roberta", "falcon", "phi", "stablelm"]),
        "ia3": ["xlm-roberta", "stablelm", "nemotron_h"],
        "ia3_feedforward": ["xlm-roberta", "stablelm", "nemotron_h"],
        "layernorm": ["nemotron_h", "bert", "roberta", "xlm-roberta", "gpt_neox", "opt", "stablelm", "mixtral"],
    ]

    // The same of encoder-decoders like BART and of further encoders.
    private static let furtherDifferences = [
        "deberta-v2.adalora": Set(["query_proj", "key_proj", "value_proj", "intermediate.dense", "output.dense"])
    ]
    private static let furtherAdded = Set([
        "mbart", "pegasus", "marian", "m2m_100", "umt5", "modernbert", "albert", "mpnet", "xlm-roberta-xl",
        "nomic_bert",
    ])
    private static let furtherAddedTo = [
        "adalora": Set(["electra"]), "ia3": ["electra"], "ia3_feedforward": ["electra"],
        "layernorm": ["electra", "deberta-v2"],
    ]

    @Test func everyFamilyDeclaresHuggingFacesTargets() throws {
        let table = try Self.table()
        let methods = try #require(table.object).keys.sorted()
        var lacking: [String: Set<String>] = [:]
        for family in ModelRegistry.families {
            for (method, names) in Self.declared(family.adapterTargets, methods) {
                guard let entry = table[method]?[family.name]?.array else {
                    lacking[method, default: []].insert(family.name)
                    continue
                }
                let differences = Self.differences.merging(Self.furtherDifferences) { $1 }
                let expected = differences["\(family.name).\(method)"] ?? Set(entry.compactMap(\.string))
                #expect(names == expected, "\(method) on \(family.name)")
            }
        }
        for method in methods {
            let added = Self.added.union(Self.addedTo[method] ?? [])
            let further = Self.furtherAdded.union(Self.furtherAddedTo[method] ?? [])
            #expect(lacking[method] == added.union(further), "\(method)")
        }
    }

    /// A target that is a whole path is in no need of its layer.
    @Test func layersDontFilterWholePaths() throws {
        let outline = try outline("llama")
        let layers = outline.linears.map(\.path).filter { $0.hasSuffix(".q_proj") }
        var selection = TargetSelection(targets: [layers[1], "k_proj"])
        selection.layers = [0]
        #expect(
            try selection.paths(in: outline, among: outline.linears.map(\.path)) == [
                layers[0].replacing("q_proj", with: "k_proj"), layers[1],
            ])
    }

    /// Hugging Face PEFT compares the ends of names when it looks for (IA)³'s feed-forward modules.
    @Test func feedForwardModulesAreSuffixes() throws {
        var configuration = IA3.Configuration()
        configuration.selection = TargetSelection(targets: ["k", "o", "wo"])
        configuration.feedForward = ["o"]
        let plan = try MethodChoice(IA3.self, configuration).plan(for: outline("t5-v1.1"))
        let scalesInput = plan.map { ($0.path, $0.tensors.allSatisfy { $0.shape[0] == 1 }) }
        #expect(
            scalesInput.allSatisfy { $0.1 == $0.0.hasSuffix("o") } && scalesInput.contains { $0.0.hasSuffix("wo") })
    }

    private func outline(_ base: String) throws -> ModelOutline {
        ModelOutline(try ModelFolder(Models.folder.appendingPathComponent(base)).outline())
    }

    @Test(arguments: cases) func targetsAreHuggingFaces(family: String, base: String) throws {
        let table = try Self.table()
        let outline = try outline(base)
        #expect(outline.family == family)
        let methods = [
            "lora", "adalora", "ia3", "vera", "loha", "lokr", "oft", "boft", "layernorm",
            "miss", "hira", "shira", "gralora", "randlora", "delora", "road", "pvera", "hra",
        ]
        for method in methods {
            guard let targets = table[method]?[family]?.array?.compactMap(\.string) else { continue }
            var choice = MethodChoice.forTests(try PEFTMethods.named(method), on: base)
            /// Hugging Face PEFT adapts no module that is trained in full, such as a new head.
            func plan() throws -> Set<String> {
                let paths = try choice.plan(for: outline).map(\.path)
                return Set(paths.filter { path in !outline.newModules.contains { path.hasPrefix($0 + ".") } })
            }
            let planned = try plan()
            // Some of a family's targets are not in each of its models; Hugging Face passes them over.
            let paths = method == "layernorm" ? outline.parameters.map(\.owner) : outline.linears.map(\.path)
            let there = targets.filter { target in paths.contains { TargetSelection.names(target, $0) } }
            #expect(!there.isEmpty, "\(method)")
            try choice.set("targets", to: there.joined(separator: ","))
            #expect(try planned == plan(), "\(method)")
        }
    }

    @Test(arguments: cases) func rescaledInputsAreHuggingFaces(family: String, base: String) throws {
        guard let names = try Self.table()["ia3_feedforward"]?[family]?.array?.compactMap(\.string) else { return }
        let resolved = IA3.resolved(IA3.Configuration(), for: try outline(base))
        let expected = Self.differences["\(family).ia3_feedforward"] ?? Set(names)
        #expect(Set(resolved.feedForward) == expected)
    }

    /// With fewer heads of keys than of queries, a prefix has the keys'.
    @Test(arguments: [
        ("llama", 12, 2), ("decoders/gemma2", 16, 2), ("decoders/phi3", 8, 1), ("decoders/qwen2", 8, 2),
    ])
    func prefixesHaveTheSizeOfKeys(base: String, size: Int, heads: Int) throws {
        let resolved = PrefixTuning.resolved(PrefixTuning.Configuration(), for: try outline(base))
        #expect(resolved.tokens.size == size && resolved.tokens.heads == heads && resolved.tokens.layers == 3)
        #expect(resolved.hiddenSize == size)
    }

    /// What a soft prompt begins as is what the layers see: Gemma multiplies its embeddings.
    @Test func promptsBeginAsScaledEmbeddings() throws {
        let model = try Models.load("decoders/gemma2")
        var choice = MethodChoice(PromptTuning.self)
        try choice.set("tokens", to: "3")
        try choice.set("init", to: "vocabulary")
        let adapter = try Adapter(choice, on: model, seed: 3)
        let prompt = try #require(adapter.storedTensors()["prompt_embeddings"])
        let table = try #require(model.parameters().first { $0.path == "model.embed_tokens.weight" }).parameter.tensor
        for row in 0..<3 {
            let distances: [Float] = (table * 4 - prompt[row].unsqueezed(0)).squared().sum(axes: [1]).array()
            #expect(try #require(distances.min()) < 1e-10)
        }
    }

    @Test func slicesThatAProjectionDoesNotHaveAreRefused() throws {
        var configuration = LoRA.Configuration(rank: 2, alpha: 4, targets: ["gate_up_proj"])
        configuration.extras.slices = ProjectionSlices([true, false, true])
        let error = try failure {
            _ = try MethodChoice(LoRA.self, configuration).plan(for: try outline("decoders/phi3"))
        }
        #expect(error.problem.contains("consists of gate, up, but 3 slices are given"))
    }
}
