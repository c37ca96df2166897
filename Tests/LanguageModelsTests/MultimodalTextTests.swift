import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// The text part of a multimodal model is a model by itself, and the rest of its file stays as it is. (That it computes
/// what transformers computes is tested by `DecoderParityTests`.)
@Suite struct MultimodalTextTests {
    /// Fixtures with the older prefixes of their names, as published files have them.
    static let older = [
        "gemma3_vision": [
            "model.language_model.": "language_model.model.", "model.vision_tower.": "vision_tower.",
            "model.multi_modal_projector.": "multi_modal_projector.",
        ],
        "gemma4_vision": [
            "model.language_model.": "model.language_model.", "model.vision_tower.": "vision_tower.",
            "model.embed_vision.": "model.embed_vision.",
        ],
        "mistral3": [
            "model.language_model.": "language_model.model.", "model.vision_tower.": "vision_tower.",
            "model.multi_modal_projector.": "multi_modal_projector.", "lm_head.": "language_model.lm_head.",
        ],
        "qwen2_5_vl": ["model.language_model.": "model.", "model.visual.": "visual.", "lm_head.": "lm_head."],
        "qwen3_vl": ["model.language_model.": "model.language_model.", "model.visual.": "model.visual."],
        "qwen3_5": [
            "model.language_model.": "model.language_model.", "model.visual.": "model.visual.",
            "lm_head.": "lm_head.",
        ],
    ]
    static let names = older.keys.sorted()

    private func tensors(_ folder: URL) throws -> [String: Tensor] {
        let file = try SafetensorsFile(folder.appendingPathComponent("model.safetensors"))
        return try Dictionary(uniqueKeysWithValues: file.entries.keys.map { ($0, try file.tensor($0)) })
    }

    private func logits(_ model: any LanguageModel, _ fixture: DecoderFixture) throws -> Tensor {
        let batch = model.batch(try fixture.expected().rows, device: .cpu)
        return try withTorchErrors { withoutGradients { model.logits(batch) } }
    }

    /// transformers bounds the logits of the model of texts alone.
    @Test func theCapOfTheLogitsIsThatOfTheModelOfTexts() throws {
        let fixture = DecoderFixture(name: "gemma3_vision")
        var fields = try #require(try JSON.read(fixture.file("config.json")).object)
        var text = try #require(fields["text_config"]?.object)
        text["final_logit_softcapping"] = 0.5
        fields["text_config"] = .object(text)
        let model = try withModelFolder(.object(fields), weights: fixture.file("model.safetensors")) {
            try ModelFolder($0).load()
        }
        #expect(relativeDifference(try logits(model, fixture), try fixture.tensors().tensor("logits")) < 1e-4)
    }

    private func isVision(_ name: String) -> Bool { !name.contains("language_model") && !name.hasPrefix("lm_head") }

    /// Names of published files are understood; the model is written with the newer ones, the vision part untouched.
    @Test(arguments: names) func theOtherTensorsAreWrittenBack(name: String) throws {
        let fixture = DecoderFixture(name: name)
        let original = try tensors(fixture.file("config.json").deletingLastPathComponent())
        let renames = try #require(Self.older[name])
        let published = try Dictionary(
            uniqueKeysWithValues: original.map { key, tensor -> (String, Tensor) in
                let (new, old) = try #require(renames.first { key.hasPrefix($0.key) }, "\(key)")
                // Another dtype than the model computes in.
                return (old + key.dropFirst(new.count), isVision(key) ? tensor.to(.bfloat16) : tensor)
            })
        let configuration = try JSON.read(fixture.file("config.json"))
        try withModelFolder(configuration, weights: nil) { folder in
            try SafetensorsFile.write(
                published, metadata: [:], to: folder.appendingPathComponent("model.safetensors"))
            let model = try ModelFolder(folder).load()
            #expect(try logits(model, fixture).isIdentical(to: logits(fixture.load(), fixture)))
            let copy = folder.appendingPathComponent("copy")
            try model.save(to: copy)
            let written = try tensors(copy)
            #expect(Set(written.keys) == Set(original.keys))
            #expect(written.keys.contains(where: isVision))
            for (key, tensor) in original {
                let expected = isVision(key) ? tensor.to(.bfloat16) : tensor
                #expect(written[key].map { expected.isIdentical(to: $0) } == true, "\(key)")
            }
            let saved = try JSON.read(copy.appendingPathComponent("config.json"))
            for key in ["vision_config", "text_config", "model_type"] { #expect(saved[key] == configuration[key]) }
            #expect(try logits(ModelFolder(copy).load(), fixture).isIdentical(to: logits(model, fixture)))
        }
    }

    /// A quantized text part names the other parts as not quantized, where its format can.
    @Test func otherPartsAreNotQuantized() throws {
        let source = try DecoderFixture(name: "qwen3_vl").file("config.json").deletingLastPathComponent()
        try withTemporaryFolder { folder in
            let copy = folder.appendingPathComponent("a")
            let model = try ModelFolder(source).with(weights: WeightStorage("nf4", block: 32)).load()
            try model.save(to: copy)
            let settings = try JSON.read(copy.appendingPathComponent("config.json"))["quantization_config"]
            #expect(settings?["llm_int8_skip_modules"]?.array?.contains("model.visual") == true)
            #expect(try tensors(copy).keys.filter { $0.hasPrefix("model.visual.") }.count > 5)
            #expect(
                try ModelFolder(copy).load().namedModules().contains {
                    ($0.module as? Linear)?.weight.isQuantized == true
                })
        }
        let projections = QuantizedFolder.Projections(
            all: [("a", .gptq(GroupQuantization(bits: 4, groupSize: 32), zeroType: nil, hasOrder: false))],
            outputLayer: "lm_head",
            otherParts: ["model.visual"])
        let error = try #require(throws: PEFTError.self) { try GPTQFormat(of: projections) }
        #expect(error.problem.contains("'model.visual' isn't quantized"))
    }

    @Test func theFolderIsNeededForWriting() throws {
        let fixture = DecoderFixture(name: "qwen3_vl")
        try withTemporaryFolder { folder in
            let source = folder.appendingPathComponent("model")
            try FileManager.default.copyItem(
                at: fixture.file("config.json").deletingLastPathComponent(), to: source)
            let model = try ModelFolder(source).load()
            try FileManager.default.removeItem(at: source)
            let error = try #require(throws: PEFTError.self) {
                try model.save(to: folder.appendingPathComponent("a"))
            }
            #expect(error.problem.contains("is gone"))
        }
    }

    /// transformers reads the number of tokens in `text_config` and the tie in both objects.
    @Test func aResizedVocabularyIsDescribedInTheTextPart() throws {
        let fixture = DecoderFixture(name: "qwen3_vl")
        let model = try fixture.load()
        model.setOutputLayer(Linear(16, 96, bias: false))
        model.vocabularyTable?.weight = DenseWeight(.zeros([100, 16]))
        let fields = model.describingVocabulary(try #require(model.configuration.object))
        #expect(fields["vocab_size"] == nil && fields["text_config"]?["vocab_size"] == 100)
        #expect(fields["tie_word_embeddings"] == false && fields["text_config"]?["tie_word_embeddings"] == false)
    }
}
