import PEFTSupport
import Torch

/// PiSSA (Meng et al. 2024, eq. 2–4): A and B are initialized with the principal singular values and vectors of W,
/// and the base weight keeps the residual.
public struct PiSSA: BuiltInMethod, ResidualInitialization {
    /// Iterations of a randomized SVD in Hugging Face's files; `nil` there is the exact SVD, which is always used here.
    package var iterations: Int?

    package init() {}

    package func label(_ name: String) -> String { "PiSSA" }

    package var json: JSON { .string(iterations.map { "\(Self.prefix)\($0)" } ?? Self.name) }

    package mutating func read(_ json: JSON) throws -> Bool {
        guard let text = json.string, text == Self.name || text.hasPrefix(Self.prefix) else { return false }
        iterations = nil
        guard text != Self.name else { return true }
        guard let count = Int(text.dropFirst(Self.prefix.count)), count >= 0 else {
            throw PEFTError("'\(text)' has no number of iterations", remedy: "use a form such as pissa_niter_4")
        }
        iterations = count
        return true
    }

    private static let prefix = "pissa_niter_"

    package func factors(of weight: Tensor, rank: Int, scale: Double) -> (a: Tensor, b: Tensor) {
        let (u, s, vh) = weight.svd()
        let right = vh.narrowed(axis: 0, 0..<rank).contiguous()
        let root = (s.narrowed(axis: 0, 0..<rank) / scale).sqrt() * Self.signs(of: right)
        return (right * root.unsqueezed(1), u.narrowed(axis: 1, 0..<rank) * root)
    }

    /// The sign of each row's largest component. The sign of a singular vector pair is arbitrary and depends on the
    /// library's rounding; with these signs the largest component of each right singular vector is positive on every
    /// machine.
    static func signs(of rows: Tensor) -> Tensor {
        guard rows.device != .meta else { return .ones([rows.dim(0)], dtype: rows.dtype, device: .meta) }
        let values: [Double] = rows.array()
        let width = rows.dim(1)
        let signs = (0..<rows.dim(0)).map { row -> Double in
            let largest = values[row * width..<(row + 1) * width].max { abs($0) < abs($1) }
            return largest ?? 1 < 0 ? -1 : 1
        }
        return Tensor(signs, device: rows.device)
    }

    package enum Implementation: LoRAFamily {
        package static let name = "pissa"
        package static let summary =
            "LoRA initialized with the weight's principal singular vectors (Meng et al. 2024)"
        package static let defaultLearningRate = 3e-4

        package static func recognizes(_ json: [String: JSON]) -> Bool {
            (json["init_lora_weights"]?.string ?? "").hasPrefix("pissa")
        }

        package static func configure(_ configuration: inout LoRA.Configuration) {
            configuration.variants.initialization = PiSSA()
        }
    }
}
