import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import Training

/// A failed tensor operation in a method of a user's own is an error of the function that the user called, and not the
/// end of the process.
@Suite struct EntryPointTests {
    /// A bias per output whose tensor has one element too many where `fault` says.
    private enum Misshapen: PEFTMethod {
        static let name = "misshapen"
        static let peftType: String? = "MISSHAPEN"
        static let isReadableByHuggingFace = false
        static let summary = "a bias of the wrong size"
        static let defaultLearningRate = 1e-3

        enum Fault: String { case attaching, computing, merging }

        struct Configuration: MethodConfiguration {
            var fault = Fault.computing
            static let fields: [ConfigurationField<Configuration>] = []
            func validate() throws {}
        }

        static func label(_ configuration: Configuration) -> String { name }

        static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [PEFT.Attachment] {
            try TargetSelection(targets: ["o"]).sites(in: model).map { site in
                .linear(site.path, [TensorSpec("bias", [site.outputs])]) { linear, context in
                    Shift(outputs: linear.outputs, configuration.fault, context)
                }
            }
        }

        final class Shift: Module, LinearAdapter, AdapterModule {
            @ParameterInfo var bias: Tensor
            private let fault: Fault
            private let wrong: Tensor

            init(outputs: Int, _ fault: Fault, _ context: AttachmentContext) {
                let zeros = Tensor.zeros([outputs], dtype: context.dtype, device: context.device)
                wrong = .zeros([outputs + 1], dtype: context.dtype, device: context.device)
                _bias = ParameterInfo(wrappedValue: fault == .attaching ? zeros + wrong : zeros)
                self.fault = fault
            }

            func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
                base(x) + bias + (fault == .computing ? wrong : bias)
            }

            func merged(into weight: Tensor) throws -> Tensor {
                fault == .merging ? weight + wrong.to(weight.dtype) : weight
            }
        }
    }

    private func choice(_ fault: Misshapen.Fault) -> MethodChoice {
        MethodChoice(Misshapen.self, Misshapen.Configuration(fault: fault))
    }

    private func model() throws -> any LanguageModel { try ModelFolder(Checkout.model("t5-v1.1")).load() }

    private let rows = [EncodedExample(input: [5, 6, 1], target: [7, 1])]

    @Test func attachingThrows() throws {
        let model = try model()
        #expect(throws: PEFTError.self) { try Adapter(choice(.attaching), on: model) }
    }

    @Test func generatingTrainingAndValidatingThrow() throws {
        let model = try model()
        let adapter = try Adapter(choice(.computing), on: model)
        let generator = try Generator(model, GenerateParameters(maxNewTokens: 2))
        #expect(throws: PEFTError.self) { try generator.generate([[5, 6, 1]]) }
        var configuration = TrainingConfiguration()
        configuration.epochs = 1
        let trainer = try Trainer(
            adapter, training: EncodedRows(rows), validation: rows, configuration: configuration)
        #expect(throws: PEFTError.self) { try trainer.run() }
        #expect(throws: PEFTError.self) { try trainer.validationLoss() }
    }

    @Test func mergingThrowsAndLeavesTheModel() throws {
        let model = try model()
        let adapter = try Adapter(choice(.merging), on: model)
        let before = model.parameters().map { ($0.parameter.tensor, $0.parameter.tensor.clone()) }
        #expect(throws: PEFTError.self) { try adapter.merge() }
        #expect(!adapter.isMerged)
        #expect(before.allSatisfy { $0.0.isIdentical(to: $0.1) })
    }

    @Test func mixedBatchesThrow() throws {
        let model = try model()
        let adapters = AdapterSet(on: model)
        let adapter = try Adapter(choice(.computing), on: model, name: "wrong")
        try adapter.deactivate()
        try adapters.add(adapter)
        #expect(throws: PEFTError.self) {
            try MixedBatch(adapters).run(["wrong"]) {
                _ = model.logits(model.batch([([5, 6, 1], [7, 1])], device: .cpu))
            }
        }
    }
}
