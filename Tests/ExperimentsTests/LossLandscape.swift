import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch
import TorchNN

/// A method whose loss is a chosen function of the learning rate, for tests of the search.
///
/// Its one parameter θ starts at 0 and adds θ to the logit of token 0, which no target is. So the gradient is positive,
/// and one step of AdamW, whose first update is ±1 times the rate, takes θ to −rate. In place of θ the adapter then adds
/// h(rate) to that logit: the loss grows with h.
enum LossLandscape: PEFTMethod {
    static let name = "landscape"
    static let peftType: String? = "LANDSCAPE"
    static let isReadableByHuggingFace = false
    static let summary = "a loss that is a function of the learning rate"
    static let defaultLearningRate = 1e-3

    struct Configuration: MethodConfiguration {
        /// h(rate); NaN diverges.
        var height: @Sendable (Double) -> Double = { _ in 0 }

        init() {}
        init(_ height: @escaping @Sendable (Double) -> Double) { self.height = height }

        static let fields: [ConfigurationField<Configuration>] = []
        func validate() throws {}
    }

    static func label(_ configuration: Configuration) -> String { name }

    static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
        [
            .linear("lm_head", [TensorSpec("theta", [1])]) { linear, context in
                Adapter(outputs: linear.outputs, context, height: configuration.height)
            }
        ]
    }

    final class Adapter: Module, LinearAdapter, AdapterModule {
        /// [1], zero.
        @ParameterInfo var theta: Tensor
        /// [outputs], one for token 0.
        private let token: Tensor
        private let height: (Double) -> Double

        init(outputs: Int, _ context: AttachmentContext, height: @escaping (Double) -> Double) {
            _theta = ParameterInfo(wrappedValue: .zeros([1], dtype: context.dtype, device: context.device))
            token = Tensor((0..<outputs).map { $0 == 0 ? Float(1) : 0 })
            self.height = height
        }

        func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
            let rate = abs(theta.detached().item())
            // θ minus its value is 0 and passes the gradient on.
            let shift = (theta - theta.detached()) + (rate == 0 ? 0 : height(rate))
            return base(x) + token * shift
        }

        func merged(into weight: Tensor) throws -> Tensor { weight }
    }
}
