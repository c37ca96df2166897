import PEFTSupport
import Testing
import Torch

@testable import PEFT

/// The variants of LoRA as options, labels and fields of files.
@Suite struct LoRAVariantTests {
    private func choice(_ options: [(String, String)]) throws -> MethodChoice {
        var choice = MethodChoice(LoRA.self)
        for (name, value) in options { try choice.set(name, to: value) }
        return choice
    }

    private func label(_ options: [(String, String)]) throws -> String {
        try String(choice(options + [("targets", "q")]).label.prefix { $0 != " " })
    }

    @Test func optionsKeepTheirOrder() {
        let names = MethodChoice.options(of: LoRA.self).map(\.name)
        #expect(Array(names.prefix(6)) == ["rank", "alpha", "dropout", "rslora", "rank-pattern", "alpha-pattern"])
        let variants = ["dora", "init", "lr-ratio", "eva-rho", "loftq-iterations"]
        #expect(names.filter(variants.contains) == variants)
        #expect(Set(names).count == names.count)
    }

    @Test func initializationsAreListedInHelpAndErrors() throws {
        let help = MethodChoice.options(of: LoRA.self).first { $0.name == "init" }?.help
        #expect(
            help
                == "LoRA initialization: true, gaussian, orthogonal, pissa, olora, mica, lora-xs, corda, lora_ga, eva or loftq (default: true)"
        )
        let error = try failure { _ = try choice([("init", "random2")]) }
        #expect(error.problem.contains("\"random2\" is not a LoRA initialization"))
        #expect(
            error.remedy
                == "use true, false, gaussian, orthogonal, pissa, olora, mica, lora-xs, corda, lora_ga, eva or loftq"
        )
        #expect(throws: PEFTError.self) { try choice([("init", "pissa_niter_x")]) }
    }

    /// Help shows the value that a field has in the method's default configuration.
    @Test(arguments: [
        ("lora", "rank", "LoRA rank r (default: 8)"), ("vera", "d-initial", "initial value of d (default: 0.1)"),
        ("houlsby", "rank", "bottleneck size r (default: 64)"), ("lora", "layers", "such as 0-3,7 (default: all)"),
        ("lora+", "lr-ratio", "(LoRA+) (default: 16)"), ("lora", "lr-ratio", "to A's (LoRA+)"),
        ("rslora", "rslora", "√rank instead (default: true)"), ("oft", "coft-eps", "the identity (default: 6e-05)"),
    ])
    func helpNamesDefaults(method: String, option: String, text: String) throws {
        let options = MethodChoice.options(of: try PEFTMethods.named(method))
        let help = try #require(options.first { $0.name == option }?.help)
        #expect(help.hasSuffix(text), "\(help)")
    }

    @Test(
        arguments: [
            ("true", true), ("default", true), ("kaiming", true), ("false", false), ("random", false),
            ("gaussian", "gaussian"), ("orthogonal", "orthogonal"), ("pissa", "pissa"),
            ("pissa_niter_4", "pissa_niter_4"),
            ("olora", "olora"), ("mica", "mica"), ("lora-xs", "lora-xs"), ("corda", "corda"), ("lora_ga", "lora_ga"),
            ("eva", "eva"),
            ("loftq", "loftq"),
        ] as [(String, JSON)])
    func initializationsAreStored(text: String, value: JSON) throws {
        #expect(try choice([("init", text)]).configuration.json["init_lora_weights"] == value)
    }

    @Test func settingsDoNotDependOnTheOrderOfOptions() throws {
        for options in [[("init", "eva"), ("eva-rho", "3")], [("eva-rho", "3"), ("init", "eva")]] {
            let json = try choice(options).configuration.json
            #expect(json["eva_config"]?["rho"]?.double == 3 && json["loftq_config"] == [:])
        }
        let unused = try choice([("eva-rho", "3"), ("loftq-iterations", "2")]).configuration.json
        #expect(unused["eva_config"] == .null && unused["loftq_config"] == [:])
        let loftq = try choice([("loftq-iterations", "2"), ("init", "loftq")]).configuration.json
        #expect(loftq["loftq_config"] == ["loftq_bits": 4, "loftq_iter": 2])
        // A later value replaces an earlier one with its settings.
        let last = try choice([("init", "pissa_niter_4"), ("init", "pissa")]).configuration.json
        #expect(last["init_lora_weights"] == "pissa")
    }

    @Test func labelsCombine() throws {
        #expect(try label([]) == "LoRA")
        #expect(try label([("init", "gaussian"), ("lr-ratio", "4")]) == "LoRA+")
        #expect(try label([("rslora", "true"), ("init", "olora")]) == "rsOLoRA")
        #expect(try label([("rslora", "true"), ("dora", "true"), ("init", "eva"), ("lr-ratio", "4")]) == "rsDoRA+")
        #expect(try label([("init", "pissa")]) == "PiSSA")
        #expect(try label([("init", "loftq")]) == "LoftQ")
    }

    @Test func combinationsAreChecked() throws {
        func problem(_ options: [(String, String)]) throws -> String {
            try failure { try choice(options).configuration.validate() }.problem
        }
        #expect(try problem([("init", "orthogonal"), ("rank", "3")]).contains("the rank 3 is odd"))
        #expect(try problem([("dora", "true"), ("init", "pissa")]).hasPrefix("DoRA can't be combined"))
        #expect(try problem([("dora", "true"), ("slices", "q,v")]).hasPrefix("--slices and --lora-bias"))
        #expect(try problem([("init", "loftq"), ("lora-bias", "true")]).hasPrefix("--slices and --lora-bias"))
        try choice([("dora", "true"), ("init", "eva")]).configuration.validate()
    }
}
