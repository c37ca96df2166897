import LanguageModels
import PEFTSupport
import Testing
import Torch
import TorchNN

@testable import PEFT

/// A plan whose paths are not those of the model: an error before anything changes.
@Suite struct AttachmentTests {
    /// A method that plans a projection's adapter, or a trained tensor, at a path of its configuration.
    private enum Misplaced: PEFTMethod {
        static let name = "misplaced"
        static let peftType: String? = nil
        static let summary = "a plan with wrong paths"
        static let defaultLearningRate = 1e-3

        struct Configuration: MethodConfiguration {
            var path = ""
            var trains = false

            static let fields: [ConfigurationField<Configuration>] = []

            func validate() throws {}
        }

        static func label(_ configuration: Configuration) -> String { "misplaced at \(configuration.path)" }

        static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [PEFT.Attachment] {
            let first = try #require(model.parameters.first)
            // The first attachment is sound, so it must not remain.
            let sound = PEFT.Attachment.train(first.path, shape: first.shape, keepsBase: false)
            guard !configuration.trains else { return [sound, .train(configuration.path, shape: [1])] }
            return [
                sound,
                .linear(configuration.path, [TensorSpec("gate", [1])]) { linear, _ in
                    throw PEFTError("the adapter of \(linear) was made")
                },
            ]
        }
    }

    @Test(arguments: [
        ("shared", false, "expects type Linear at 'shared', but the model has Embedding there"),
        ("encoder.nothing", false, "expects type Linear at 'encoder.nothing', but the model has nothing there"),
        ("shared.bias", true, "expects type Parameter at 'shared.bias', but the model has nothing there"),
    ])
    func aWrongPathIsAnError(path: String, trains: Bool, message: String) throws {
        let model = try Models.load("t5-v1.0")
        let before = model.snapshot()
        let choice = MethodChoice(Misplaced.self, .init(path: path, trains: trains))
        let error = try failure { _ = try Adapter(choice, on: model) }
        #expect(error.problem.contains(message), "\(error)")
        #expect(model.adapterCount == 0 && model.changed(since: before).isEmpty)
    }

    @Test func aChoiceKeepsItsMethodWithItsConfiguration() throws {
        var choice = MethodChoice(LoRA.self)
        try choice.set("rank", to: "3")
        #expect(choice.method == LoRA.self && (choice.configuration as? LoRA.Configuration)?.rank == 3)
        let error = try failure { try choice.set("rank", to: "0") }
        #expect(error.problem.contains("--rank is '0'"))
        #expect((choice.configuration as? LoRA.Configuration)?.rank == 3)
    }
}
