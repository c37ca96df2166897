import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// Folders that transformers writes with bitsandbytes compute here what they compute there
/// (`make_bitsandbytes_fixtures.py`).
@Suite struct BitsAndBytesFolderTests {
    static let names = ["nf4", "nf4-double", "fp4-some", "int8", "gpt2"]

    private static func folder(_ name: String) throws -> URL {
        try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/bitsandbytes/\(name)")
    }

    private static func logits(_ model: any LanguageModel) throws -> Tensor {
        let rows = try JSON.read(folder("nf4").appendingPathComponent("expected.json")).rows
        return try withTorchErrors { withoutGradients { model.logits(model.batch(rows, device: .cpu)) } }
    }

    private static func quantized(_ model: any LanguageModel) -> Int {
        model.namedModules().filter { ($0.module as? Linear)?.weight.isQuantized == true }.count
    }

    @Test(arguments: names) func logitsAreThoseOfTransformers(name: String) throws {
        let folder = try Self.folder(name)
        let expected = try SafetensorsFile(folder.appendingPathComponent("expected.safetensors")).tensor("logits")
        let model = try ModelFolder(folder).load()
        #expect(Self.quantized(model) == (name == "fp4-some" ? 5 : name == "gpt2" ? 4 : 7))
        #expect(relativeDifference(try Self.logits(model), expected) < 1e-4)
        let outline = try ModelFolder(folder).outline()
        #expect(outline.parameters().map(\.path) == model.parameters().map(\.path))
        #expect(
            outline.parameters().map(\.parameter.tensor.shape) == model.parameters().map(\.parameter.tensor.shape))
    }

    /// Written and read again, every tensor has the same bits and the same name.
    @Test(arguments: names) func foldersSurvive(name: String) throws {
        let folder = try Self.folder(name)
        try withTemporaryFolder { temporary in
            let copy = temporary.appendingPathComponent("copy")
            try ModelFolder(folder).load().save(to: copy)
            let own = try SafetensorsFile(folder.appendingPathComponent("model.safetensors"))
            let written = try SafetensorsFile(copy.appendingPathComponent("model.safetensors"))
            #expect(own.entries.keys.sorted() == written.entries.keys.sorted())
            for (key, entry) in own.entries {
                #expect(written.entries[key]?.dtype == entry.dtype)
                #expect(try written.tensor(key).isIdentical(to: own.tensor(key)), "\(key)")
            }
            let settings = try JSON.read(copy.appendingPathComponent("config.json"))["quantization_config"]
            let before = try #require(
                try JSON.read(folder.appendingPathComponent("config.json"))["quantization_config"])
            for key in ["quant_method", "load_in_4bit", "load_in_8bit", "bnb_4bit_use_double_quant"] {
                #expect(settings?[key] == before[key], "\(key)")
            }
        }
    }

    /// A plain folder kept in fewer bits is what bitsandbytes makes of it.
    @Test(arguments: ["nf4", "nf4-double", "int8"]) func convertingIsWhatBitsAndBytesDoes(name: String) throws {
        let plain = try ModelFolder(Self.folder("dense")).with(weights: WeightStorage(name))
        let (model, own) = (try plain.load(), try ModelFolder(Self.folder(name)).load())
        let stored = Dictionary(own.parameters().map { ($0.path, $0.parameter.tensor) }, uniquingKeysWith: { $1 })
        #expect(model.parameters().map(\.path) == own.parameters().map(\.path))
        for (path, parameter) in model.parameters() {
            let tensor = try #require(stored[path])
            if path.contains("quant_state") {
                let texts = [parameter.tensor, tensor].map { Data($0.array(UInt8.self)) }
                #expect(try JSON.parse(texts[0], name: "a") == JSON.parse(texts[1], name: "b"))
            } else {
                #expect(parameter.tensor.isIdentical(to: tensor), "\(path)")
            }
        }
        let shapes = try plain.outline().parameters().map(\.path)
        #expect(shapes == model.parameters().map(\.path))
    }

    @Test func bf16IsHalfAndComputesTheSame() throws {
        let folder = try ModelFolder(Self.folder("dense"))
        let (wide, narrow) = (try folder.load(), try folder.with(weights: .bfloat16).load())
        for (_, linear) in WeightStorage.bfloat16.projections(of: wide) {
            linear.weight = DenseWeight(linear.weight.dense(as: .bfloat16).to(.float32))
        }
        #expect(relativeDifference(try Self.logits(narrow), try Self.logits(wide)) < 1e-5)
        let bytes = { (model: any LanguageModel) in
            WeightStorage.bfloat16.projections(of: model).flatMap(\.linear.weight.parameters)
                .reduce(0) { $0 + $1.parameter.tensor.byteCount }
        }
        #expect(bytes(narrow) * 2 == bytes(wide))
    }

    @Test func whatDoesntFitIsRefused() throws {
        #expect(throws: PEFTError.self) { try WeightStorage("nf5") }
        #expect(throws: PEFTError.self) { try WeightStorage("int8-double") }
        let quantized = try ModelFolder(Self.folder("nf4"))
        #expect(throws: PEFTError.self) { try quantized.with(weights: .int8).load() }
        // A description that speaks of another matrix.
        try withTemporaryCopy(of: Self.folder("nf4")) { copy in
            let file = copy.appendingPathComponent("model.safetensors")
            var data = try Data(contentsOf: file)
            let place = try #require(data.range(of: Data("\"shape\": [64, 128]".utf8)))
            data.replaceSubrange(place, with: Data("\"shape\": [128, 64]".utf8))
            try data.write(to: file)
            #expect(throws: PEFTError.self) { try ModelFolder(copy).load() }
        }
    }
}
