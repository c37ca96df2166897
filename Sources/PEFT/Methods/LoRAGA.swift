import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// LoRA with gradient approximation (LoRA-GA, Wang et al. 2024, algorithm 1): with the gradient of the loss w.r.t. W,
/// averaged over batches, G = U Σ Vᵀ, A and B begin with r of its 2r largest components each.
package struct LoRAGA: CalibratedInitialization {
    package var settings: [String: JSON]?

    package init() {}

    package static let name = "lora_ga"
    package static let title = "LoRA-GA"
    package static let option = "lora-ga"
    package static let key = "lora_ga_config"
    package static let help = "settings of LoRA-GA, such as {\"direction\": \"ArBr\"}"
    package static let defaultSettings: [String: JSON] = [
        "direction": "ArB2r", "scale": "stable", "stable_gamma": 16,
    ]
    package static let pass = (kind: CalibrationPass.gradients, most: 64)

    package mutating func read(_ json: JSON) throws -> Bool { json == "lora_ga" || json == "lora-ga" }

    package func checkForNewAdapters() throws {
        let (direction, scale) = (setting("direction"), setting("scale"))
        guard ["ArBr", "A2rBr", "ArB2r"].contains(direction) else {
            throw PEFTError(
                "'direction' in 'lora_ga_config' is \(direction.text(indent: nil))",
                remedy: "use ArB2r, A2rBr or ArBr")
        }
        guard ["stable", "weight_svd", "gd_scale", "unit"].contains(scale) else {
            throw PEFTError(
                "'scale' in 'lora_ga_config' is \(scale.text(indent: nil))",
                remedy: "use stable, weight_svd, gd_scale or unit")
        }
        _ = try positive("stable_gamma")
    }

    package func observation(outputs: Int, inputs: Int, device: Device) -> any CalibrationObservation {
        WeightGradient(outputs, inputs, device: device)
    }

    package func start(
        _ observation: any CalibrationObservation, of weight: any LinearWeight, rank: Int, scale: Double
    ) throws -> (a: Tensor, b: Tensor) {
        let most = min(weight.outputs, weight.inputs)
        guard 2 * rank <= most else {
            throw PEFTError(
                "LoRA-GA takes \(2 * rank) singular vectors, but a weight of shape [\(weight.outputs), \(weight.inputs)] has "
                    + "\(most)", remedy: "use a rank of at most \(most / 2)")
        }
        guard let gradient = observation.probe?.grad, observation.count > 0 else {
            throw PEFTError("the loss doesn't depend on the projection", remedy: "use other targets")
        }
        let (u, s, vh) = (gradient.to(.float64) / Double(observation.count)).svd()
        let (first, second) = (Array(0..<rank), Array(rank..<(2 * rank)))
        let (ofA, ofB): ([Int], [Int]) =
            switch setting("direction") {
            case "ArBr": (first.map { 2 * $0 + 1 }, first.map { 2 * $0 })
            case "A2rBr": (second, first)
            default: (first, second)
            }
        // Signs of singular vectors are arbitrary: the largest component of each is positive.
        func unit(_ rows: Tensor, _ indices: [Int]) -> Tensor {
            let chosen = rows.selecting(Tensor(indices, device: rows.device)).contiguous()
            return chosen * PiSSA.signs(of: chosen).unsqueezed(1)
        }
        let values = s.selecting(Tensor(ofB, device: s.device))
        var a = unit(vh, ofA)
        var b = (unit(u.T, ofB) * values.unsqueezed(1)).T
        switch setting("scale") {
        case "weight_svd":
            let largest = values.narrowed(axis: 0, 0..<1).item()
            let own = weight.dense(as: .float64).svd().s.narrowed(axis: 0, 0..<1).item()
            if largest > 0 { b = b * (own / largest) }
        case "gd_scale": (a, b) = (a / scale, b / scale)
        case "unit": break
        default:
            // Hugging Face PEFT takes the first dimension of the weight as it is stored.
            let size = weight is TransposedWeight ? weight.inputs : weight.outputs
            let gamma = try positive("stable_gamma")
            b = b * (Double(size).squareRoot() / gamma).squareRoot()
        }
        return (a, b)
    }
}

/// The gradient of the loss w.r.t. a weight, as that of zeros which are added to it.
private final class WeightGradient: CalibrationObservation {
    var count = 0
    let probe: Tensor?

    init(_ outputs: Int, _ inputs: Int, device: Device) {
        let zeros = Tensor.zeros([outputs, inputs], device: device)
        zeros.requiresGrad = true
        probe = zeros
    }

    func add(_ x: Tensor) {}
}
