import LanguageModels
import PEFTSupport

/// Families of methods, by what they attach where.
package enum MethodFamily: String, CaseIterable, Sendable {
    case lora = "LoRA and its variants"
    case weights = "other deltas and scales of weights"
    case prompts = "virtual tokens"
    case bottlenecks = "bottleneck adapters"
    case tensors = "the model's own tensors"

    /// The family of a method with the attachments of a plan.
    init(_ method: any PEFTMethod.Type, _ plan: [Attachment]) {
        let sites = plan.map(\.site)
        if method.peftType == LoRA.peftType {
            self = .lora
        } else if sites.contains(.input) || sites.contains(.keyValues) {
            self = .prompts
        } else if sites.contains(.output) {
            self = .bottlenecks
        } else if sites.contains(.linear) {
            self = .weights
        } else {
            self = .tensors
        }
    }
}

extension MethodChoice {
    /// The family of the method, as it would be attached to a model.
    /// - Throws: ``PEFTError`` if the method doesn't fit the model.
    package func family(on outline: ModelOutline) throws -> MethodFamily {
        try MethodFamily(method, plan(for: outline))
    }
}

/// A model without weights on which methods are tried.
private struct ReferenceModel {
    /// The model whose parameters are counted.
    let shape: ModelOutline
    /// The model in NF4.
    let quantized: ModelOutline
    /// Makes a model on the meta device, to which adapters are attached.
    let model: () throws -> any LanguageModel

    /// - Parameter model: may have fewer layers than `whole`.
    init(_ whole: any LanguageModel, _ model: @escaping () throws -> any LanguageModel) throws {
        shape = ModelOutline(whole)
        let copy = try model()
        try WeightStorage("nf4").apply(to: copy)
        quantized = ModelOutline(copy)
        self.model = model
    }
}

/// The abilities of a method, found by attaching it to a model without weights.
package struct MethodTraits {
    package let method: any PEFTMethod.Type
    package let family: MethodFamily
    /// Trained parameters with the default options.
    package let parameters: Int
    package let total: Int
    /// The model's family and the tensors of one site; `nil` if the method fits no reference model.
    let example: MethodExample?
    /// Whether it trains over a base in NF4.
    package let isForQuantized: Bool
    /// Whether its adapters share a batch with others.
    package let isForMixedBatches: Bool
    /// Whether the server loads its adapters.
    package let isServed: Bool

    package var isMergeable: Bool { method.isMergeable && method.peftType != nil }
    /// Which programs read its files.
    package var file: String {
        guard method.peftType != nil else { return "a model" }
        return method.isReadableByHuggingFace ? "Hugging Face PEFT's" : "its own"
    }

    /// - Throws: ``PEFTError`` if the method doesn't fit the model.
    private init(_ method: any PEFTMethod.Type, on reference: ReferenceModel) throws {
        let shape = reference.shape
        var choice = MethodChoice(method)
        // Some methods need tokens, which have no default.
        for option in ["invocation-tokens", "trainable-tokens"] where (try? choice.plan(for: shape)) == nil {
            try? choice.set(option, to: "0")
        }
        let plan = try choice.plan(for: shape)
        let summary = PlanSummary(plan, outline: shape)
        self.init(
            method: method, family: MethodFamily(method, plan), parameters: summary.trainable, total: summary.total,
            example: MethodExample(plan, of: shape),
            isForQuantized: (try? choice.plan(for: reference.quantized)) != nil,
            isForMixedBatches: Self.isForMixedBatches(choice, on: try reference.model()),
            // The server loads what has a file and leaves the layers as they are.
            isServed: method.peftType != nil && choice.replication == nil)
    }

    /// The abilities on the first of the reference models that the method fits.
    package init(_ method: any PEFTMethod.Type) { self = Self.all([method])[0] }

    /// The abilities of methods, each on the first of the reference models that it fits.
    package static func all(_ methods: [any PEFTMethod.Type]) -> [MethodTraits] {
        let models = references.compactMap { configuration, layers -> ReferenceModel? in
            let head =
                configuration["model_type"] == "bert" ? ModelHead(task: .classification, labels: ["a", "b"]) : nil
            func outline(_ configuration: JSON) throws -> any LanguageModel {
                try ModelRegistry.outline(configuration, file: "the reference model", head: head)
            }
            // Abilities don't depend on the number of layers.
            let small = JSON.object((configuration.object ?? [:]).merging([layers: 1]) { $1 })
            return try? ReferenceModel(outline(configuration)) { try outline(small) }
        }
        return methods.map { method in
            models.lazy.compactMap { try? MethodTraits(method, on: $0) }.first
                ?? MethodTraits(
                    method: method, family: .tensors, parameters: 0, total: 1, example: nil, isForQuantized: false,
                    isForMixedBatches: false, isServed: false)
        }
    }

    /// The abilities of those methods that fit a model.
    /// - Parameter outline: makes the model on the meta device, anew for each adapter.
    /// - Throws: what `outline` throws.
    package static func all(_ methods: [any PEFTMethod.Type], on outline: @escaping () throws -> any LanguageModel)
        throws
        -> [MethodTraits]
    {
        let reference = try ReferenceModel(outline(), outline)
        return methods.compactMap { try? MethodTraits($0, on: reference) }
    }

    private init(
        method: any PEFTMethod.Type, family: MethodFamily, parameters: Int, total: Int,
        example: MethodExample?, isForQuantized: Bool, isForMixedBatches: Bool, isServed: Bool
    ) {
        (self.method, self.family, self.parameters, self.total) = (method, family, parameters, total)
        self.example = example
        (self.isForQuantized, self.isForMixedBatches) = (isForQuantized, isForMixedBatches)
        self.isServed = isServed
    }

    private static func isForMixedBatches(_ choice: MethodChoice, on model: any LanguageModel) -> Bool {
        guard choice.method.peftType != nil, let adapter = try? Adapter(choice, on: model, name: "adapter") else {
            return false
        }
        let set = AdapterSet(on: model)
        guard (try? set.add(adapter)) != nil else { return false }
        return (try? MixedBatch(set).obstacle("adapter")) == .some(nil)
    }

    /// A Llama whose sizes fit the default options of all methods; a GPT-2, which has biases; and a BERT with a new head;
    /// with the key of their number of layers.
    private static let references: [(configuration: JSON, layers: String)] = [
        (
            [
                "model_type": "llama", "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 8192,
                "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
                "tie_word_embeddings": false, "max_position_embeddings": 4096, "hidden_act": "silu",
            ], "num_hidden_layers"
        ),
        (
            [
                "model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12,
                "n_positions": 1024, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
            ], "n_layer"
        ),
        (
            [
                "model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12,
                "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu",
                "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
            ], "num_hidden_layers"
        ),
    ]

    /// The table of methods and abilities in `docs/methods.md`, which a test compares with it.
    package static func markdown(_ traits: [MethodTraits]) -> String {
        // Every method is trained, saved and loaded, which the laws of the test suite check.
        let header = ["`--method`", "file", "load", "train", "merge", "quantized base", "mixed batch", "served"]
        func line(_ cells: [String]) -> String { "| " + cells.joined(separator: " | ") + " |" }
        func mark(_ holds: Bool) -> String { holds ? "yes" : "–" }
        var lines = [line(header), "|" + String(repeating: "---|", count: header.count)]
        for family in MethodFamily.allCases {
            let own = traits.filter { $0.family == family }
            guard !own.isEmpty else { continue }
            lines.append("| **\(family.rawValue)**" + String(repeating: " |", count: header.count))
            lines += own.map { traits in
                let name = traits.method.name
                let abilities = [
                    traits.isMergeable, traits.isForQuantized, traits.isForMixedBatches, traits.isServed,
                ]
                return line(
                    ["[`\(name)`](methods/\(name).md)", traits.file, "yes", "yes"] + abilities.map { mark($0) })
            }
        }
        return lines.joined(separator: "\n")
    }
}
