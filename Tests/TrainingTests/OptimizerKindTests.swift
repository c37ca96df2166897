import LanguageModels
import PEFT
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN

@testable import Training

@Suite struct OptimizerKindTests {
    @Test func optionsAreParsed() throws {
        var configuration = TrainingConfiguration()
        try configuration.setOptimizer("GaLore( rank=64, scale=0.5 )")
        #expect(configuration.optimizer == .gaLore && configuration.optimizerOptions == ["rank": 64, "scale": 0.5])
        #expect(configuration.optimizerText == "galore(rank=64,scale=0.5)")
        try configuration.setOptimizer("adamw")
        #expect(configuration.optimizerOptions == nil && configuration.optimizerText == "adamw")
    }

    @Test(arguments: [
        ("loin", "did you mean 'lion'?"), ("adamw(beta1=1)", "0 … 0.9999"), ("muon(rank=4)", "use one of momentum"),
        ("galore(rank=1.5)", "an integer"), ("galore(rank=64", "closing parenthesis"), ("galore(rank)", "number"),
        ("lion(beta1=nan)", "0.9999"),
    ]) func mistakesAreErrors(text: String, part: String) throws {
        var configuration = TrainingConfiguration()
        let error = try #require(throws: PEFTError.self) { try configuration.setOptimizer(text) }
        #expect(error.description.contains(part), "\(error.description)")
    }

    @Test func stateOfSomeOptimizersIsPaged() throws {
        for kind in TrainingConfiguration.OptimizerKind.allCases {
            var configuration = TrainingConfiguration()
            configuration.optimizer = kind
            configuration.memory.pagesOptimizer = true
            let pages = [.adamw, .adamw8bit, .lion, .muon, .scheduleFree].contains(kind)
            if pages {
                try configuration.validate()
            } else {
                #expect(throws: PEFTError.self) { try configuration.validate() }
            }
        }
    }

    /// Muon, GaLore and APOLLO treat projections as matrices, and tables of vectors and soft prompts as AdamW does.
    @Test func hiddenMatricesAreProjections() throws {
        let full = try Adapter(
            MethodChoice(try PEFTMethods.named("full")), on: ModelFolder(Checkout.model("llama")).load())
        let paths = Set(zip(full.trained.map(\.path), full.areHiddenMatrices).filter(\.1).map(\.0))
        #expect(paths.contains { $0.hasSuffix("q_proj.weight") } && paths.allSatisfy { $0.hasSuffix("proj.weight") })
        let prompt = try Adapter(
            MethodChoice(try PEFTMethods.named("prompt")), on: ModelFolder(Checkout.model("llama")).load())
        #expect(!prompt.areHiddenMatrices.contains(true))
        let lora = try Adapter(
            MethodChoice(try PEFTMethods.named("lora")), on: ModelFolder(Checkout.model("llama")).load())
        #expect(!lora.areHiddenMatrices.contains(false))
    }

    @Test func loraFAFreezesA() throws {
        let adapter = try Adapter(
            MethodChoice(LoRA.self, LoRA.Configuration(rank: 2, alpha: 4, targets: ["q_proj", "v_proj"])),
            on: ModelFolder(Checkout.model("llama")).load())
        let before = adapter.storedTensors().mapValues { $0.clone() }
        var configuration = TrainingConfiguration()
        (configuration.optimizer, configuration.steps) = (.loraFA, 2)
        let example = EncodedExample(input: [3, 4, 5], target: [6, 7])
        try Trainer(adapter, training: [example], validation: [], configuration: configuration).run()
        for (name, tensor) in adapter.storedTensors() {
            #expect(before[name]?.isIdentical(to: tensor) == name.contains("lora_A"), "\(name)")
        }
    }

    @Test func variantsAreNotForLoRAFA() throws {
        var configuration = TrainingConfiguration()
        configuration.optimizer = .loraFA
        let adapter = try Adapter(
            MethodChoice(try PEFTMethods.named("dora")), on: ModelFolder(Checkout.model("llama")).load())
        let error = try #require(throws: PEFTError.self) { try configuration.checkOptimizer(for: adapter) }
        #expect(error.problem.contains("lora-fa"))
    }

    /// Averages would undo AdaLoRA's pruning.
    @Test func adaLoRAIsNotForScheduleFree() throws {
        var configuration = TrainingConfiguration()
        configuration.optimizer = .scheduleFree
        let adapter = try Adapter(
            MethodChoice(try PEFTMethods.named("adalora")), on: ModelFolder(Checkout.model("llama")).load())
        #expect(throws: PEFTError.self) { try configuration.checkOptimizer(for: adapter) }
    }
}
