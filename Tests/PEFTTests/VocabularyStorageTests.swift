import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// Bases whose embedding table and output layer are kept in fewer bits.
@Suite struct VocabularyStorageTests {
    static let kinds = ["bf16", "int8", "nf4", "nf4-double"]
    /// With an output layer of their own, with a tied one, with a tied one that scales, with scaled embeddings and capped
    /// scores.
    static let models = [
        "llama", "qwen2", "gpt2", "t5-v1.0", "t5-v1.1", "decoders/gemma", "decoders/gemma2", "decoders/phi3",
    ]

    private static func folder(_ name: String) throws -> ModelFolder {
        try ModelFolder(Models.folder.appendingPathComponent(name))
    }

    /// The model as it is kept, and with the numbers that this means.
    private static func pair(_ name: String, _ kind: String) throws -> (
        kept: any LanguageModel, wide: any LanguageModel
    ) {
        let folder = try folder(name).with(embeddings: WeightStorage(kind))
        let (kept, wide) = (try folder.load(), try folder.load())
        try withTorchErrors { wide.upcastVocabulary() }
        return (kept, wide)
    }

    private static func table(_ model: any LanguageModel) throws -> Embedding {
        try #require(model.namedModules().first { $0.path == model.inputEmbedding }?.module as? Embedding)
    }

    private static func head(_ model: any LanguageModel) -> Linear? {
        model.namedModules().first { $0.path == model.outputLayer }?.module as? Linear
    }

    private static func choice(_ name: String, _ fields: [String: String]) throws -> MethodChoice {
        var choice = MethodChoice(try PEFTMethods.named(name))
        for (field, value) in fields.sorted(by: { $0.key < $1.key }) { try choice.set(field, to: value) }
        return choice
    }

    /// Scores, loss and gradients are those of the dense numbers.
    private static func expectAlike(_ kept: any LanguageModel, _ wide: any LanguageModel, _ choice: MethodChoice)
        throws
    {
        let adapters = try [kept, wide].map { try Adapter(choice, on: $0, seed: 3) }
        for adapter in adapters { try adapter.randomize(seed: 5, deviation: 0.05) }
        #expect(try relativeDifference(kept.scores(), wide.scores()) < 1e-5)
        for smoothing in [0, 0.1] {
            let losses = try withTorchErrors {
                try [kept, wide].map { model -> Double in
                    let batch = model.batch(Models.rows(for: model), device: .cpu)
                    let loss = model.lossSum(batch, labelSmoothing: smoothing)
                    loss.backward()
                    try checkTorchErrors()
                    return loss.item()
                }
            }
            #expect(abs(losses[0] - losses[1]) <= 1e-5 * abs(losses[1]))
        }
        for (a, b) in zip(adapters[0].parameters, adapters[1].parameters) {
            #expect(try relativeDifference(#require(a.tensor.grad), #require(b.tensor.grad)) < 1e-3)
        }
    }

    @Test(arguments: models, kinds) func itIsTheModelOfTheNumbers(name: String, kind: String) throws {
        let (kept, wide) = try Self.pair(name, kind)
        #expect(try !(Self.table(kept).weight is DenseWeight))
        #expect(Self.head(kept).map { !($0.weight is DenseWeight) } ?? true)
        #expect(kept.byteCount < wide.byteCount)
        try Self.expectAlike(kept, wide, Self.choice("lora", ["rank": "2", "targets": "all-linear"]))
    }

    /// Word for word, one row and many.
    @Test(arguments: ["llama", "qwen2", "t5-v1.0", "decoders/gemma2"], kinds)
    func itWritesTheSame(name: String, kind: String) throws {
        let (kept, wide) = try Self.pair(name, kind)
        var parameters = GenerateParameters()
        parameters.maxNewTokens = 12
        for rows in [1, 3, 10] {
            let prompts = (0..<rows).map { row in (0..<(3 + row)).map { 2 + ($0 * 17 + row * 5) % 90 } }
            #expect(
                try Generator(kept, parameters).generate(prompts) == Generator(wide, parameters).generate(prompts))
        }
    }

    /// A bf16 file's matrices stay as they are where projections are kept in fewer bits, an fp32 file's too; nothing
    /// changes where they aren't.
    @Test(arguments: ["llama", "t5-v1.0"], [DType.bfloat16, .float16, .float32])
    func whatIsStoredIsKept(name: String, type: DType) throws {
        try withTemporaryFolder { temporary in
            let file = temporary.appendingPathComponent("stored")
            try Self.folder(name).load().save(to: file, dtype: type)
            let plain = try ModelFolder(file).load()
            #expect(try Self.table(plain).weight is DenseWeight)
            for kind in ["nf4", "int8", "bf16"] {
                let model = try ModelFolder(file).with(weights: WeightStorage(kind)).load()
                for weight in [try Self.table(model).weight, Self.head(model)?.weight].compactMap(\.self) {
                    #expect(weight.parameters[0].parameter.tensor.dtype == type)
                    #expect((weight is NarrowWeight) == (type != .float32))
                }
                #expect(
                    try Self.table(model).weight.dense(as: .float32).isIdentical(
                        to: Self.table(plain).weight.dense(as: .float32)))
                let outline = try ModelFolder(file).with(weights: WeightStorage(kind)).outline()
                #expect(ModelOutline(outline).weightBytes == model.byteCount)
            }
            let wide = try ModelFolder(file).with(weights: .blocks(BlockQuantization()))
                .with(embeddings: .float32).load()
            #expect(try Self.table(wide).weight is DenseWeight)
        }
    }

    /// What is stored is counted, before it is there too.
    @Test(arguments: ["bf16", "int8", "nf4"]) func itIsCounted(kind: String) throws {
        let folder = try Self.folder("llama").with(weights: WeightStorage("nf4"))
            .with(embeddings: WeightStorage(kind))
        let (outline, model) = (try ModelOutline(folder.outline()), try folder.load())
        #expect(outline.weightBytes == model.byteCount)
        #expect(outline.parameterCount == (try Self.folder("llama").load()).parameterCount)
        let words = try [Self.table(model).weight, #require(Self.head(model)).weight].flatMap(\.parameters)
            .reduce(0) { $0 + $1.parameter.tensor.byteCount }
        let numbers = 2 * 96 * 24
        switch kind {
        case "bf16": #expect(words == numbers * 2)
        case "int8": #expect(words == numbers + 2 * (96 * 4 + 1))
        default: #expect(words < numbers)
        }
    }

    /// Methods that act on the table, or read it.
    @Test(
        arguments: [
            ("llama", "lora", ["rank": "2", "targets": "embed_tokens,lm_head,q_proj"]),
            ("qwen2", "lora", ["rank": "2", "targets": "embed_tokens,q_proj"]),
            ("llama", "trainable_tokens", ["trainable-tokens": "2,5,39,80"]),
            ("qwen2", "trainable_tokens", ["trainable-tokens": "2,5,39,80"]),
            ("t5-v1.0", "trainable_tokens", ["trainable-tokens": "2,5,39,80"]),
            ("decoders/gemma", "prompt", ["tokens": "4"]), ("t5-v1.1", "prompt", ["tokens": "4"]),
        ], kinds)
    func methodsWorkOverIt(_ example: (model: String, method: String, fields: [String: String]), kind: String) throws
    {
        let (kept, wide) = try Self.pair(example.model, kind)
        let choice = try Self.choice(example.method, example.fields)
        let starts = try [kept, wide].map { try Adapter(choice, on: $0, seed: 7) }
        for (key, tensor) in starts[0].storedTensors() {
            #expect(tensor.isIdentical(to: try #require(starts[1].storedTensors()[key])), "\(key)")
        }
        for adapter in starts { try adapter.deactivate() }
        try Self.expectAlike(kept, wide, choice)
    }

    /// Training leaves its bits; merging changes them and unmerging brings them back.
    @Test(arguments: kinds) func itsBitsStay(kind: String) throws {
        let (kept, _) = try Self.pair("llama", kind)
        let before = kept.snapshot()
        let adapter = try Adapter(Self.choice("lora", ["rank": "2", "targets": "embed_tokens,q_proj"]), on: kept)
        try adapter.train(steps: 3, rate: 1e-2)
        let trained = try kept.scores()
        try adapter.merge()
        // The table's update is rounded as the table is.
        #expect(try relativeDifference(kept.scores(), trained) < 0.5)
        try adapter.unmerge()
        #expect(try kept.scores().isIdentical(to: trained))
        try adapter.deactivate()
        #expect(kept.changed(since: before).isEmpty)
    }

    /// A module to save is a copy in fp32 of what is kept in 16 bits; rounded numbers aren't trained.
    @Test(arguments: ["lm_head", "embed_tokens"]) func modulesToSave(module: String) throws {
        let choice = try Self.choice("lora", ["rank": "2", "targets": "q_proj", "modules-to-save": module])
        let (kept, wide) = try Self.pair("llama", "bf16")
        let before = kept.snapshot()
        try Self.expectAlike(kept, wide, choice)
        let adapter = try Adapter(choice, on: Self.pair("llama", "bf16").kept, seed: 1)
        let path = try #require(adapter.trained.first).path
        let bits = adapter.model.snapshot()
        #expect(try #require(adapter.trained.first).values.dtype == .float32)
        let losses = try adapter.train(steps: 6, rate: 1e-2)
        #expect(try #require(losses.last) < losses[0])
        try adapter.deactivate()
        #expect(adapter.model.changed(since: bits) == [path] || adapter.model.changed(since: bits).isEmpty)
        #expect(adapter.model.changed(since: before).isEmpty)
        let refusal = try failure { _ = try Adapter(choice, on: Self.pair("llama", "int8").kept) }
        #expect(
            refusal.problem.hasSuffix("trains 'model.\(module).weight', which is stored as int8 and can't be trained")
                || refusal.problem.hasSuffix(
                    "trains '\(module).weight', which is stored as int8 and can't be trained")
        )
    }

    @Test(arguments: kinds) func fullFineTuningIsRefused(kind: String) throws {
        let (kept, _) = try Self.pair("qwen2", kind)
        #expect(throws: PEFTError.self) { try Adapter(MethodChoice(FullFineTuning.self), on: kept) }
    }

    /// What a folder can't hold isn't written; a table in bf16 is widened, or written as it is.
    @Test func writing() throws {
        try withTemporaryFolder { temporary in
            let kept = try Self.pair("qwen2", "int8").kept
            let refusal = try failure { try kept.save(to: temporary.appendingPathComponent("int8")) }
            #expect(
                refusal.problem
                    == "'model.embed_tokens' is quantized, which a model folder can't store")
            #expect(try FileManager.default.contentsOfDirectory(atPath: temporary.path).isEmpty)
            let narrow = try Self.pair("qwen2", "bf16").kept
            for type in [nil, DType.bfloat16] {
                let file = temporary.appendingPathComponent(type?.rawValue ?? "own")
                try narrow.save(to: file, dtype: type)
                let folder = try ModelFolder(file)
                #expect(try folder.storedType() == type ?? .float32)
                #expect(
                    try Self.table(folder.load()).weight.dense(as: .float32).isIdentical(
                        to: Self.table(narrow).weight.dense(as: .float32)))
            }
        }
    }

    /// In a half-precision model the table's vectors are of its type.
    @Test(arguments: ["int8", "nf4"]) func halfPrecision(kind: String) throws {
        let folder = try Self.folder("llama").with(embeddings: WeightStorage(kind))
        let (kept, wide) = (try folder.load(dtype: .bfloat16), try folder.load())
        #expect(try Self.table(kept)(Tensor([1, 2])).dtype == .bfloat16)
        let scores = try withTorchErrors {
            withoutGradients { kept.computing { kept.logits(kept.batch(Models.rows(for: kept), device: .cpu)) } }
        }
        #expect(try relativeDifference(scores.to(.float32), wide.scores()) < 0.05)
    }
}
