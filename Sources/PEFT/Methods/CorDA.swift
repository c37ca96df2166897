import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Context-oriented decomposition (CorDA, Yang et al. 2024, eq. 3–5): with C the covariance of a projection's inputs and
/// W C = U Σ Vᵀ, the adapter begins with the largest (`ipm`, instruction-previewed) or smallest (`kpm`,
/// knowledge-preserved) components of U Σ (Vᵀ C⁻¹) = W.
package struct CorDA: CalibratedInitialization {
    package var settings: [String: JSON]?

    package init() {}

    package static let name = "corda"
    package static let title = "CorDA"
    package static let option = "corda"
    package static let key = "corda_config"
    package static let help = "settings of CorDA, such as {\"corda_method\": \"kpm\"}"
    package static let defaultSettings: [String: JSON] = [
        "cache_file": .null, "covariance_file": .null, "corda_method": "ipm", "verbose": false,
        "use_float16_for_covariance": false, "prune_temporary_fields": true,
    ]
    /// 256 examples, as in the paper (section 4).
    package static let pass = (kind: CalibrationPass.examples, most: 256)

    package func checkForNewAdapters() throws {
        let method = setting("corda_method")
        guard method == "ipm" || method == "kpm" else {
            throw PEFTError("'corda_method' is \(method.text(indent: nil))", remedy: "use ipm or kpm")
        }
        for (key, neutral) in [
            ("cache_file", JSON.null), ("covariance_file", .null), ("use_float16_for_covariance", false),
        ] where setting(key) != neutral {
            throw PEFTError("'\(key)' in 'corda_config' is not supported for new adapters", remedy: "remove it")
        }
    }

    package func observation(outputs: Int, inputs: Int, device: Device) -> any CalibrationObservation {
        ScaledCovariance(inputs, device: device)
    }

    package func start(
        _ observation: any CalibrationObservation, of weight: any LinearWeight, rank: Int, scale: Double
    ) throws -> (a: Tensor, b: Tensor) {
        try ResidualLoRAAdapter.check(rank: rank, of: weight)
        guard let observed = observation as? ScaledCovariance, observed.count > 0 else {
            throw PEFTError("no input reached the projection", remedy: "use another initialization, or other targets")
        }
        let covariance = (observed.sum / Double(observed.count)).to(.float64)
        let identity = Tensor.identity(covariance.dim(0), dtype: .float64, device: covariance.device)
        let mean = (covariance * identity).sum().item() / Double(covariance.dim(0))
        // Dampened until it can be inverted, as in Hugging Face PEFT.
        var damping = 0.01
        var (dampened, inverse) = (covariance, identity)
        repeat {
            guard mean > 0, mean.isFinite, damping < 1e6 else {
                throw PEFTError(
                    "the covariance of its inputs can't be inverted",
                    remedy: "use another initialization, or other targets")
            }
            dampened = covariance + identity * (mean * damping)
            inverse = dampened.solving(identity)
            damping *= 2
        } while (dampened.matmul(inverse) - identity).squared().sum().item().squareRoot() >= 0.05
        let (u, s, vh) = weight.dense(as: .float64).matmul(dampened).svd()
        let count = s.dim(0)
        let range = setting("corda_method") == "kpm" ? (count - rank)..<count : 0..<rank
        let right = vh.matmul(inverse).narrowed(axis: 0, range).contiguous()
        let root = (s.narrowed(axis: 0, range) / scale).sqrt() * PiSSA.signs(of: right)
        return (right * root.unsqueezed(1), u.narrowed(axis: 1, range) * root)
    }
}

/// The sum over examples of XᵀX, with the inputs X `[tokens, in]` of an example divided by their largest value.
private final class ScaledCovariance: CalibrationObservation {
    var count = 0
    private(set) var sum: Tensor
    var probe: Tensor? { nil }

    init(_ inputs: Int, device: Device) { sum = .zeros([inputs, inputs], device: device) }

    func add(_ x: Tensor) throws {
        try withoutGradients {
            let rows = x.detached().to(.float32).reshaped(-1, x.dim(-1))
            let largest = abs(rows.max().item())
            guard largest > 0, largest.isFinite else {
                throw PEFTError(
                    "the largest input is \(largest)", remedy: "use another initialization, or other data")
            }
            let scaled = rows / largest
            sum.add(scaled.T.matmul(scaled))
        }
    }
}
