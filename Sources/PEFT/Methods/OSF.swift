import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Orthogonal subspace fine-tuning (Nayak et al. 2025): the weight's singular vectors with the largest singular values are
/// frozen, the remaining ones U_low `[out, k]`, S_low `[k]` and V_low `[k, in]` are trained, and the parts of the
/// gradients in the frozen subspaces are removed, so that what an earlier task used is kept.
public enum OSF: BuiltInMethod {
    /// A number of singular values, or their share of all.
    public enum Rank: Sendable, Equatable {
        case count(Int)
        case share(Double)

        init(_ json: JSON) throws {
            let text = json.string ?? ""
            if let count = json.int.flatMap({ json == .integer($0) ? $0 : nil }) ?? Int(text) {
                self = .count(count)
            } else if let share = json.double ?? Double(text), share > 0 {
                // As in Hugging Face PEFT: numbers above 1 lose their fraction.
                self = share <= 1 ? .share(share) : .count(Int(min(share, 1e9)))
            } else {
                self = .count(0)
            }
            guard self != .count(0) else {
                throw PEFTError(
                    "\(json.text(indent: nil)) is not a rank", remedy: "use an integer from 1, or a share from 0 to 1"
                )
            }
        }

        var json: JSON {
            switch self {
            case .count(let count): .integer(count)
            case .share(let share): .number(share)
            }
        }
    }

    /// Options of ``OSF``.
    public struct Configuration: TargetedConfiguration {
        /// Rank of the frozen part; half of the smaller size if `nil`.
        public var rank: Rank?
        /// Ranks of modules whose paths contain a match of a regular expression.
        public var rankPattern: [String: Rank] = [:]
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        /// Number of frozen singular values of a projection, at least 1 and less than all.
        func rank(for site: ModelOutline.LinearSite) throws -> Int {
            let least = min(site.inputs, site.outputs)
            var rank = rank
            // The first match in the file, whose keys are sorted.
            for (pattern, value) in rankPattern.sorted(by: { $0.key < $1.key })
            where try TargetSelection.wholeMatch(".*(\(pattern)).*", option: "rank-pattern").matches(site.path) {
                rank = value
                break
            }
            let count =
                switch rank {
                case .count(let count): count
                case .share(let share): Int(Double(least) * share)
                case nil: least / 2
                }
            guard count >= 1, count < least else {
                throw PEFTError(
                    "\(count) of the \(least) singular values of '\(site.path)' are frozen",
                    remedy: "use a rank from 1 to \(max(1, least - 1))")
            }
            return count
        }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    .init(
                        "rank", key: "effective_rank", .text,
                        help: "frozen singular values: how many, or their share of all (half of them)"
                    ) {
                        $0.rank?.json ?? .null
                    } write: {
                        $0.rank = try Rank($1)
                    },
                    .init(
                        "rank-pattern", key: "rank_pattern", .numbersByPattern,
                        help: "ranks for matching modules: pattern=rank,…"
                    ) {
                        $0.rankPattern.isEmpty ? .null : .object($0.rankPattern.mapValues(\.json))
                    } write: {
                        guard let object = $1.object else {
                            throw PEFTError(
                                "\($1.text(indent: nil)) doesn't map patterns to ranks", remedy: "use an object")
                        }
                        $0.rankPattern = try object.mapValues { try Rank($0) }
                    },
                ] + targetFields(\.selection, help: "target modules, comma-separated, or all-linear (all-linear)")

            package static let neutral: [String: [JSON]] = ["init_weights": [true, false]]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = OSF.Configuration
        package static let name = "osf"
        package static let peftType: String? = "OSF"
        package static let summary =
            "trained small singular values and vectors, orthogonal to the large ones (Nayak et al. 2025)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            "OSF (\(configuration.selection.label))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            if configuration.selection.targets.isEmpty { configuration.selection.targets = ["all-linear"] }
            configuration.selection = configuration.selection.resolved(for: model)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let configuration = resolved(configuration, for: model)
            return try configuration.selection.sites(in: model).map { site in
                let frozen = try configuration.rank(for: site)
                let trained = min(site.inputs, site.outputs) - frozen
                return .linear(
                    site.path,
                    [
                        .init("osf_svd_params.S_low", [trained]),
                        .init("osf_svd_params.U_low", [site.outputs, trained]),
                        .init("osf_svd_params.V_low", [trained, site.inputs]),
                    ]
                ) { linear, context in
                    OSFAdapter(linear, frozen: frozen, trained: trained, context)
                }
            }
        }
    }
}

final class OSFAdapter: Module, LowRankDelta {
    @ParameterInfo(key: "osf_svd_params.S_low") var s: Tensor = .zeros([0])
    @ParameterInfo(key: "osf_svd_params.U_low") var u: Tensor = .zeros([0])
    @ParameterInfo(key: "osf_svd_params.V_low") var v: Tensor = .zeros([0])
    /// U_high `[out, rank]` and V_high `[rank, in]`, frozen.
    private var highU: Tensor = .zeros([0])
    private var highV: Tensor = .zeros([0])
    let dropoutRate = 0.0
    /// The start of U_low S_low and V_low, whose product is subtracted from the weight.
    private var start: (b: Tensor, a: Tensor) = (.zeros([0]), .zeros([0]))

    init(_ linear: Linear, frozen: Int, trained: Int, _ context: AttachmentContext) {
        super.init()
        u = context.zeros([linear.outputs, trained])
        s = context.zeros([trained])
        v = context.zeros([trained, linear.inputs])
        (highU, highV) = (context.zeros([linear.outputs, frozen]), context.zeros([frozen, linear.inputs]))
        start = (context.zeros([linear.outputs, trained]), context.zeros([trained, linear.inputs]))
        guard context.device != .meta else { return }
        withoutGradients {
            // All that depends on it are products in which the arbitrary signs of singular vectors cancel.
            let (wholeU, wholeS, wholeV) = linear.weight.dense(as: .float64).svd()
            let all = frozen..<(frozen + trained)
            u.copy(from: wholeU.narrowed(axis: 1, all))
            s.copy(from: wholeS.narrowed(axis: 0, all))
            v.copy(from: wholeV.narrowed(axis: 0, all))
            start = ((u * s).detached().clone(), v.detached().clone())
            highU = wholeU.narrowed(axis: 1, 0..<frozen).to(context.dtype).contiguous()
            highV = wholeV.narrowed(axis: 0, 0..<frozen).to(context.dtype).contiguous()
        }
    }

    /// U_low and V_low, whose gradients lose their parts in the frozen subspaces: G − U_high U_highᵀ G. The values are
    /// unchanged, as what is projected is 0.
    private var projected: (u: Tensor, v: Tensor) {
        let (changeU, changeV) = (u - u.detached(), v - v.detached())
        return (
            u.detached() + (changeU - highU.matmul(highU.T.matmul(changeU))),
            v.detached() + (changeV - changeV.matmul(highV.T).matmul(highV))
        )
    }

    func factors(_ cast: (Tensor) -> Tensor) -> (a: Tensor, b: Tensor) {
        let own = projected
        let (u, v) = (cast(own.u), cast(own.v))
        let b = Tensor.concatenated([u * cast(s), -start.b.to(u.dtype)], axis: 1)
        return (Tensor.concatenated([v, start.a.to(v.dtype)]), b)
    }
}
