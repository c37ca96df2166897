import LanguageModels
import PEFTSupport
import Testing
import Torch
import TorchNN

@testable import PEFT

@Suite struct LoRAConfigurationTests {
    private func paths(_ change: (inout LoRA.Configuration) throws -> Void) throws -> [String] {
        var configuration = LoRA.Configuration()
        try change(&configuration)
        let outline = ModelOutline(try Models.load("t5-v1.1"))
        return try MethodChoice(LoRA.self, configuration).plan(for: outline).map(\.path)
    }

    @Test func namesAreWholePartsOfPaths() throws {
        // 2 encoder layers and 3 decoder layers with two attentions each.
        #expect(try paths { $0.selection.targets = ["q"] }.count == 8)
        #expect(try paths { $0.selection.targets = ["SelfAttention.q"] }.count == 5)
        #expect(
            try paths { $0.selection.targets = ["decoder.block.1.layer.1.EncDecAttention.v"] } == [
                "decoder.block.1.layer.1.EncDecAttention.v"
            ])
        #expect(throws: PEFTError.self) { try paths { $0.selection.targets = ["Attention.q"] } }
    }

    @Test func allLinearLeavesTheOutputLayerAlone() throws {
        let all = try paths { $0.selection.targets = ["all-linear"] }
        #expect(all.count == 2 * 7 + 3 * 11)
        #expect(!all.contains("lm_head"))
        #expect(try paths { $0.selection.targets = ["lm_head"] } == ["lm_head"])
    }

    @Test func layersAndExclusions() throws {
        try #expect(
            paths {
                try $0.set("targets", to: "q, v")
                try $0.set("layers", to: "1-2")
                try $0.set("exclude", to: "EncDecAttention.q,EncDecAttention.v")
            } == [
                "encoder.block.1.layer.0.SelfAttention.q", "encoder.block.1.layer.0.SelfAttention.v",
                "decoder.block.1.layer.0.SelfAttention.q", "decoder.block.1.layer.0.SelfAttention.v",
                "decoder.block.2.layer.0.SelfAttention.q", "decoder.block.2.layer.0.SelfAttention.v",
            ])
        // "layer" is T5's name for the sublayers of a block.
        let crossAttentions = try paths {
            $0.selection.targets = ["q"]
            $0.selection.layers = [1]
            $0.selection.layersPattern = ["layer"]
        }
        #expect(crossAttentions == (0..<3).map { "decoder.block.\($0).layer.1.EncDecAttention.q" })
    }

    @Test func whatThereIsNotIsAnError() throws {
        let none = try failure { _ = try paths { $0.selection.layers = [7] } }
        #expect(none.remedy?.contains("--layers") == true)
        #expect(
            try failure {
                _ = try paths {
                    $0.selection = TargetSelection(targets: ["nothing.*"], isPattern: true)
                }
            }.problem.contains("nothing.*"))
    }

    /// Hugging Face takes the first pattern of its sorted files that matches, exact or not.
    @Test func patternsDecideRankAndScale() throws {
        var configuration = LoRA.Configuration(rank: 8, alpha: 16, targets: ["q", "k"])
        configuration.rankPattern = ["q": 2, "SelfAttention.q": 3, "encoder.block.0.layer.0.SelfAttention.q": 5]
        configuration.alphaPattern = ["k": 4]
        let model = try Models.load("t5-v1.1")
        _ = try Adapter(MethodChoice(LoRA.self, configuration), on: model)
        var found: [String: LoRAAdapter] = [:]
        for (path, module) in model.namedModules() {
            if let adapter = (module as? Linear)?.adapters.first as? LoRAAdapter { found[path] = adapter }
        }
        #expect(found["encoder.block.0.layer.0.SelfAttention.q"]?.a.dim(0) == 3)
        #expect(found["decoder.block.0.layer.1.EncDecAttention.q"]?.a.dim(0) == 2)
        #expect(found["decoder.block.0.layer.1.EncDecAttention.k"]?.a.dim(0) == 8)
        #expect(found["decoder.block.0.layer.1.EncDecAttention.k"]?.scale == 0.5)
        #expect(found["decoder.block.0.layer.1.EncDecAttention.q"]?.scale == 8)
    }

    @Test func commandLineValues() throws {
        var configuration = LoRA.Configuration()
        try configuration.set("rank", to: "12")
        try configuration.set("alpha", to: "2.5")
        try configuration.set("rslora", to: "yes")
        try configuration.set("rank-pattern", to: "a=b=3,q=4")
        try configuration.set("layers", to: "0-2,5")
        try configuration.set("layers-pattern", to: "block")
        #expect(configuration.json["r"] == 12)
        #expect(configuration.json["lora_alpha"] == 2.5)
        #expect(configuration.json["use_rslora"] == true)
        #expect(configuration.json["rank_pattern"] == ["a=b": 3, "q": 4])
        #expect(configuration.json["layers_to_transform"] == [0, 1, 2, 5])
        #expect(configuration.json["layers_pattern"] == ["block"])
        try configuration.validate()
    }

    @Test(arguments: [
        ("rank", "0"), ("rank", "65537"), ("rank", "eight"), ("rank", ""), ("alpha", "nan"), ("dropout", "1"),
        ("rslora", "maybe"), ("targets", ""), ("targets", ","), ("layers", "3-1"), ("layers", "a"), ("layers", "1-"),
        ("layers", "0-99999999"), ("rank-pattern", "q"), ("rank-pattern", "q=x"), ("alpha-pattern", "=,"),
    ]) func wrongCommandLineValues(name: String, text: String) throws {
        var configuration = LoRA.Configuration()
        let error = try failure { try configuration.set(name, to: text) }
        #expect(error.problem.contains("--\(name)"))
    }

    @Test(arguments: ["rank-pattern", "alpha-pattern"], ["q=inf", "q=nan", "q=-1", "q=1e300", "q=0"])
    func patternsAreChecked(name: String, text: String) throws {
        var configuration = LoRA.Configuration()
        try configuration.set(name, to: text)
        guard name != "alpha-pattern" || text != "q=1e300" else { return }
        #expect(throws: PEFTError.self) { try configuration.validate() }
    }

    @Test func unknownOptionsNameTheNearest() throws {
        var choice = MethodChoice(LoRA.self)
        #expect(try failure { try choice.set("rnak", to: "4") }.remedy == "did you mean --rank?")
        var full = MethodChoice(FullFineTuning.self)
        #expect(try failure { try full.set("rank", to: "4") }.remedy == "this method has no options")
    }

    /// Hugging Face's defaults are others than the ones here, and files may leave them out.
    @Test func filesHaveHuggingFacesDefaults() throws {
        let configuration = try LoRA.Configuration(json: [
            "target_modules": ["q", "query"], "layers_to_transform": 1,
        ])
        #expect(configuration.json["r"] == 8)
        #expect(configuration.json["lora_alpha"] == 8)
        #expect(LoRA.Configuration().json["lora_alpha"] == 16)
        let outline = ModelOutline(try Models.load("t5-v1.1"))
        // A list of names for many families: one that fits is enough.
        #expect(try LoRA.plan(configuration, for: outline).count == 3)
        let nothing = try LoRA.Configuration(json: ["target_modules": ["query", "value"]])
        #expect(throws: PEFTError.self) { try LoRA.plan(nothing, for: outline) }
    }
}
