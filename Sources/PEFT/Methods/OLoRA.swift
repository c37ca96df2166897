import PEFTSupport
import Torch

/// OLoRA (Büyükakyüz 2024): with W = Q R, A and B are initialized with the first r rows of R and columns of Q; the
/// base weight keeps the residual.
public struct OLoRA: BuiltInMethod, ResidualInitialization {
    package init() {}

    package func label(_ name: String) -> String { "OLoRA" }

    package func factors(of weight: Tensor, rank: Int, scale: Double) -> (a: Tensor, b: Tensor) {
        let (q, r) = weight.qr()
        return (r.narrowed(axis: 0, 0..<rank), q.narrowed(axis: 1, 0..<rank))
    }

    package enum Implementation: LoRAFamily {
        package static let name = "olora"
        package static let summary = "LoRA initialized from a QR decomposition of the weight (Büyükakyüz 2024)"
        package static let defaultLearningRate = 3e-4

        package static func recognizes(_ json: [String: JSON]) -> Bool { json["init_lora_weights"] == "olora" }

        package static func configure(_ configuration: inout LoRA.Configuration) {
            configuration.variants.initialization = OLoRA()
        }
    }
}
