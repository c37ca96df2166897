import Foundation
import PEFTSupport
import Testing
import Torch
import TorchNN

@testable import LanguageModels

/// Rounding whole models, to the nearest and by GPTQ.
@Suite struct GroupQuantizerTests {
    private static let settings = GroupQuantization(bits: 3, groupSize: 32)
    private static let order = [
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ]
    private static let paths = (0..<2).flatMap { layer in order.map { "model.layers.\(layer).\($0)" } }

    /// A Llama of plain numbers whose projections fill groups.
    private static func model() throws -> any LanguageModel {
        let folder = try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/gptq/plain")
        let model = try ModelFolder(folder).load()
        for (_, module) in model.namedModules() {
            if let linear = module as? Linear { linear.weight = DenseWeight(linear.weight.dense(as: .float32)) }
        }
        return model
    }

    private static func linears(_ model: any LanguageModel) -> [String: Linear] {
        model.namedModules().reduce(into: [:]) { if let linear = $1.module as? Linear { $0[$1.path] = linear } }
    }

    private static func run(_ model: any LanguageModel) {
        let rows = (0..<6).map { row in
            ((0..<20).map { 2 + ($0 * (7 + 4 * row) + row) % 90 }, (0..<8).map { 2 + ($0 * 13 + row) % 90 })
        }
        _ = model.logits(model.batch(rows, device: .cpu))
    }

    private final class Recorder: Module, LinearAdapter {
        var hessian = Tensor.zeros([1])
        func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
            let rows = x.detached().to(.float32)
            hessian = (rows.T.matmul(rows) * 2).to(.float64)
            return base(x)
        }
        func merged(into weight: Tensor) -> Tensor { weight }
    }

    /// Each projection sees what those before it make with their rounded weights; one after the other, without stages,
    /// gives the same integers.
    @Test func projectionsFollowEachOther() throws {
        let (model, other) = (try Self.model(), try Self.model())
        let quantizer = GroupQuantizer(Self.settings)
        let outcomes = try quantizer.calibrate(model) { Self.run(model) }
        #expect(Set(outcomes.map(\.path)) == Set(Self.paths))
        let (own, reference) = (Self.linears(model), Self.linears(other))
        for path in Self.paths {
            let linear = try #require(reference[path])
            let recorder = Recorder()
            _ = linear.attach(recorder, route: nil)
            try withTorchErrors { withoutGradients { UnreadOutputs.computed { Self.run(other) } } }
            linear.detach(recorder)
            let weight = try GroupQuantizedWeight(
                rounding: linear.weight.dense(as: .float32), to: Self.settings, hessian: recorder.hessian)
            linear.weight = weight
            let found = try #require(own[path]?.weight as? GroupQuantizedWeight)
            #expect(found.integers.tensor.isIdentical(to: weight.integers.tensor), "\(path)")
            #expect(found.scales.tensor.isIdentical(to: weight.scales.tensor), "\(path)")
        }
        #expect(own["lm_head"]?.weight is DenseWeight)
        #expect(own.values.allSatisfy { !$0.isAdapted })
    }

    @Test func errorsAreSmallerThanToTheNearest() throws {
        let model = try Self.model()
        let outcomes = try GroupQuantizer(Self.settings).calibrate(model) { Self.run(model) }
        for outcome in outcomes {
            let (error, nearest) = (try #require(outcome.outputError), try #require(outcome.nearestOutputError))
            #expect(error < nearest, "\(outcome.path)")
            #expect(outcome.bytes * 5 < outcome.bytesBefore)
        }
        let nearest = try GroupQuantizer(Self.settings).round(Self.model())
        #expect(nearest.allSatisfy { $0.weightError > 0.05 && $0.weightError < 0.3 && $0.outputError == nil })
    }

    @Test func whatDoesNotFillGroupsIsLeft() throws {
        var settings = Self.settings
        settings.groupSize = 64
        let model = try Self.model()
        let (chosen, left) = GroupQuantizer(settings).selection(in: model)
        #expect(chosen.count == 12)
        #expect(left.count == 3)
        #expect(left.contains { $0.path == "lm_head" })
        #expect(left.contains { $0.path.hasSuffix("down_proj") && $0.reason.contains("96 inputs") })
        settings.groupSize = 128
        #expect(throws: PEFTError.self) { try GroupQuantizer(settings).round(model) }
    }
}
