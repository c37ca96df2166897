import Foundation
import PEFTSupport
import Testing
import Torch
import TorchNN

@testable import LanguageModels

/// What the families declare fits the models that they make of an empty `config.json`.
@Suite struct ModelFamilyTests {
    static let names = ModelRegistry.families.map(\.name)

    /// Keys that a family's other models have, where they have modules of their own.
    private static let variants: [String: [String: JSON]] = [
        "falcon": ["parallel_attn": false],
        "lfm2": ["layer_types": ["conv"], "num_hidden_layers": 1],
        "lfm2_moe": ["layer_types": ["conv"], "num_hidden_layers": 1],
        "granitemoehybrid": ["layer_types": ["full_attention"], "num_hidden_layers": 1],
    ]

    private static func made(_ name: String, _ fields: [String: JSON] = [:]) throws -> (
        family: ModelFamily, model: any LanguageModel
    ) {
        let fields = fields.merging(["model_type": .string(name)]) { $1 }
        let model = try ModelRegistry.outline(.object(fields), file: "config.json")
        return (model.modelFamily, model)
    }

    /// Whether one of the paths has this name.
    private static func occurs(_ name: String, _ paths: [String]) -> Bool {
        paths.contains { $0 == name || $0.hasSuffix("." + name) }
    }

    @Test func namesAreDistinct() { #expect(Set(Self.names).count == ModelRegistry.families.count) }

    @Test(arguments: names) func modelsHaveTheEmbeddingAndOutputLayer(name: String) throws {
        let (family, model) = try Self.made(name)
        #expect(family.name == name && model.family == name)
        #expect(model.vocabularyTable != nil)
        #expect((model.generates ? model.outputLayer : nil) == family.modules.output.path)
        #expect(ModelRegistry.isEncoder(name) == (model.architecture == .encoder))
    }

    /// Every projection is part of an attention or a feed-forward sublayer, the output layer or an untrained head.
    @Test(arguments: names) func projectionsAreOfNamedSublayers(name: String) throws {
        let (family, model) = try Self.made(name)
        let known = family.modules.attention.union(family.modules.feedForward)
        for (path, module) in model.namedModules() where module is Linear && path != model.outputLayer {
            let parts = path.split(separator: ".").map(String.init)
            let isNew = model.newModules.contains { path == $0 || path.hasPrefix($0 + ".") }
            #expect(isNew || !known.isDisjoint(with: parts), "\(path)")
        }
    }

    @Test(arguments: names) func modelsHaveTheDefaultTargets(name: String) throws {
        let (family, model) = try Self.made(name)
        let modules = try model.namedModules() + Self.made(name, Self.variants[name] ?? [:]).model.namedModules()
        let linears = modules.filter { $0.module is Linear }.map(\.path)
        let norms = modules.filter { $0.module is RMSNorm || $0.module is LayerNorm }.map(\.path)
        let targets = family.adapterTargets
        for target in targets.lora.names + targets.adaLoRA.names + targets.ia3.names {
            #expect(Self.occurs(target, linears), "\(target)")
        }
        for norm in targets.norms { #expect(Self.occurs(norm, norms), "\(norm)") }
        #expect(Set(targets.ia3FeedForward).isSubset(of: targets.ia3.names))
    }

    /// A GGUF file has a name for every tensor, and the name leads back.
    @Test(arguments: names) func tensorsHaveNamesInGGUF(name: String) throws {
        let (family, model) = try Self.made(name)
        guard let architecture = family.gguf.written else { return }
        let names = try GGUFNames(of: model)
        for path in model.parameters().map(\.path) {
            if let tensors = names.form(of: path)?.tensors {
                #expect(tensors.allSatisfy { names.form(ofTensor: $0)?.path == path }, "\(path)")
                continue
            }
            if let (tensor, row) = names.tensors.stack(of: path) {
                #expect(names.tensors.rows(of: tensor).map { "\($0).\(row).weight" } == path)
                continue
            }
            if let parts = architecture.experts?.tensors(of: path) {
                #expect(parts.allSatisfy { architecture.experts?.path(of: $0)?.path == path }, "\(path)")
                continue
            }
            #expect(names.tensor(of: path).flatMap(names.path) == path, "\(path)")
        }
    }
}
