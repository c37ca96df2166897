import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Full-rank fine-tuning by joint decomposition (FRoD): W = U diag(λ₀) Vᵀ with one V `[in, in]` for all projections of a
/// kind, W' = U (S + diag(λ)) Vᵀ with trained λ `[in]` and a trained sparse S `[in, in]`.
///
/// ΔW is computed as U (S + diag(λ − λ₀)) Vᵀ, so that training starts at the base model bit for bit. U and λ₀ follow from W
/// and V. V is arbitrary up to signs and rotations, and Hugging Face draws the positions of S with PyTorch's generator,
/// so both are always in the file.
public enum FRoD: BuiltInMethod {
    /// Options of ``FRoD``.
    public struct Configuration: TargetedConfiguration {
        /// Dropout probability of the branch's input.
        public var dropout = 0.0
        /// Seed of the positions of S.
        public var key = 0
        /// Whether the file contains V and the positions of S, which is required.
        public var savesProjection = true
        /// Fraction of S that is trained.
        public var density = 0.01
        /// Regularization of the joint decomposition.
        public var regularization = 1e-3
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package func check() throws {
            guard savesProjection else {
                throw PEFTError(
                    "save_projection is false, but the file of a FRoD adapter must contain its projections: they can't be "
                        + "computed from the base again",
                    remedy: "save the adapter in Hugging Face PEFT with save_projection=True")
            }
            try selection.validate()
        }

        /// Number of trained elements of S `[size, size]`.
        func count(size: Int) -> Int {
            let count = min(Int(Double(size * size) * density), size * (size - 1))
            return density > 0 && size > 1 ? max(1, count) : count
        }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    numberField(
                        "dropout", key: "frod_dropout", \.dropout, 0...0.99, help: "dropout on the branch's input"),
                    integerField(
                        "projection-key", key: "projection_prng_key", \.key, 0...Int.max,
                        help: "seed of the sparse factor's positions"),
                    flagField(
                        "save-projection", key: "save_projection", \.savesProjection,
                        help: "store the joint decomposition in the file"),
                    numberField(
                        "sparse-rate", key: "sparse_rate", \.density, 0...1,
                        help: "trained fraction of the sparse factor"),
                    numberField(
                        "regularization", key: "regularization_alpha", \.regularization, 0...1e6,
                        help: "regularization of the joint decomposition"),
                ] + targetFields(\.selection) + layerFields(\.selection)

            package static let neutral: [String: [JSON]] = [
                "bias": ["none"], "fan_in_fan_out": [false, true], "init_weights": [true, false],
                "progressbar": [true, false], "runtime_offload_base_weight": [true, false],
            ]
        }
    }

    /// The projections that share V: those of one name in all layers, by Hugging Face's names.
    static func category(_ path: String) -> String {
        let parts = path.split(separator: ".").map(String.init)
        guard parts.count > 1 else { return path }
        let (owner, leaf) = (parts[parts.count - 2], parts[parts.count - 1])
        if Int(owner) != nil { return leaf }
        let isAttention = parts.count > 2 && parts[parts.count - 3] == "attention"
        return (owner, leaf) == ("output", "dense") && isAttention ? "attention_output" : "\(owner)_\(leaf)"
    }

    /// What the projections of a category share.
    final class JointDecomposition {
        let category: String
        /// V `[in, in]`
        let v: Parameter
        /// Rows and columns of S's trained elements, `[2, count]`, int64.
        let indices: Parameter
        /// S's shape `[2]`, int64.
        let size: Parameter

        init(
            _ category: String, of paths: Set<String>, size: Int, count: Int, _ configuration: Configuration,
            _ context: AttachmentContext
        ) throws {
            self.category = category
            let device = context.device
            v = Parameter(context.zeros([size, size]))
            indices = Parameter(.zeros([2, count], dtype: .int64, device: device))
            self.size = Parameter(
                device == .meta ? .empty([2], dtype: .int64, device: .meta) : Tensor([size, size], device: device))
            guard device != .meta, !context.isLoading else { return }
            let weights = context.model.namedModules().compactMap { path, module in
                paths.contains(path) ? (module as? Linear)?.weight.dense(as: .float64) : nil
            }
            try withoutGradients {
                v.tensor.copy(from: Self.common(weights, size: size, regularization: configuration.regularization))
                try checkTorchErrors()
            }
            // Elements beside the diagonal, each at most once.
            var random = SeededRandom(seed: UInt64(configuration.key))
            var chosen: Set<Int> = []
            var order: [Int] = []
            let all = size * (size - 1)
            for last in (all - count)..<all {
                let drawn = random.below(last + 1)
                let element = chosen.insert(drawn).inserted ? drawn : last
                chosen.insert(element)
                order.append(element)
            }
            let rows = order.map { $0 / (size - 1) }
            let columns = zip(order, rows).map { element, row in
                let column = element % (size - 1)
                return column < row ? column : column + 1
            }
            if count > 0 { indices.tensor.copy(from: Tensor(rows + columns, shape: [2, count], device: device)) }
        }

        /// V of weights `[out, in]`: the right factor of their hierarchical generalized singular value decomposition, from
        /// the QR decomposition of all rows and the eigenvectors of the mean inverse of the parts' Gram matrices.
        private static func common(_ weights: [Tensor], size: Int, regularization: Double) -> Tensor {
            let stacked = Tensor.concatenated(weights)
            let identity = Tensor.identity(size, dtype: stacked.dtype, device: stacked.device)
            guard stacked.dim(0) >= size else {
                let padding = Tensor.zeros(
                    [size - stacked.dim(0), size], dtype: stacked.dtype, device: stacked.device)
                return Tensor.concatenated([stacked, padding]).svd().vh.T
            }
            let (q, r) = stacked.qr()
            var sum = identity * 0
            for part in q.split(axis: 0, weights.map { $0.dim(0) }) {
                sum = sum + (part.T.matmul(part) + identity * regularization).solving(identity)
            }
            // Of a symmetric positive definite matrix, singular vectors are eigenvectors.
            return r.T.matmul(sum.svd().u)
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = FRoD.Configuration
        package static let name = "frod"
        package static let peftType: String? = "FROD"
        // When Hugging Face PEFT loads a file, it keeps the U that it computed with its own V, whose columns another program's V
        // need not have in the same order and with the same signs.
        package static let isReadableByHuggingFace = false
        package static let summary =
            "trained diagonal and sparse factors of a joint decomposition of the weights (FRoD)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            "FRoD (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let sites = try resolved(configuration, for: model).selection.sites(in: model)
            let categories = Dictionary(grouping: sites) { category($0.path) }
            for (category, sites) in categories.sorted(by: { $0.key < $1.key }) {
                guard sites.allSatisfy({ $0.inputs == sites[0].inputs }) else {
                    throw PEFTError(
                        "the projections '\(category)' of this \(model.family) model have different numbers of inputs",
                        remedy: "select one of them in --targets by a longer name")
                }
            }
            return sites.map { site in
                let category = category(site.path)
                let count = configuration.count(size: site.inputs)
                return .linear(
                    site.path,
                    [
                        .init("frod_lambda_l", [site.inputs]), .init("frod_lambda_s_values", [count]),
                        .init("base_model.frod_V.\(category)", [site.inputs, site.inputs], isTrained: false),
                        .init("base_model.frod_s_indices.\(category)", [2, count], isTrained: false, isIndex: true),
                        .init("base_model.frod_s_size.\(category)", [2], isTrained: false, isIndex: true),
                    ]
                ) { linear, context in
                    let shared = try context.shared("frod \(category)") {
                        let paths = Set((categories[category] ?? []).map(\.path))
                        return try JointDecomposition(
                            category, of: paths, size: site.inputs, count: count, configuration, context)
                    }
                    return try FRoDAdapter(linear, configuration, shared, count: count, context)
                }
            }
        }
    }
}

final class FRoDAdapter: Module, LinearAdapter, AdapterModule {
    /// λ `[in]`, initially λ₀, so that training starts at the base model.
    private let diagonal: Parameter
    /// The trained elements of S `[count]`, initially 0.
    private let values: Parameter
    private let shared: FRoD.JointDecomposition
    /// U `[out, in]` and λ₀ `[in]`.
    private var u: Tensor
    private var start: Tensor
    private let dropoutRate: Double
    /// W when the adapter was attached, from which U is computed once V is known.
    private let original: any LinearWeight

    init(
        _ linear: Linear, _ configuration: FRoD.Configuration, _ shared: FRoD.JointDecomposition, count: Int,
        _ context: AttachmentContext
    ) throws {
        (self.shared, dropoutRate) = (shared, configuration.dropout)
        original = linear.weight.snapshot()
        values = Parameter(context.zeros([count]))
        diagonal = Parameter(context.zeros([linear.inputs]))
        u = context.zeros([linear.outputs, linear.inputs])
        start = context.zeros([linear.inputs])
        super.init()
        guard context.device != .meta, !context.isLoading else { return }
        try decompose()
        diagonal.tensor.copy(from: start)
    }

    /// U and λ₀ of W = U diag(λ₀) Vᵀ, with columns of norm 1 in U.
    private func decompose() throws {
        try withoutGradients {
            let v = shared.v.tensor.detached().to(.float64)
            let product = v.solving(original.dense(as: .float64).T).T
            let norms = product.squared().sum(axes: [0]).sqrt()
            start = norms.to(u.dtype)
            u = (product / norms.atLeast(1e-12)).to(u.dtype).contiguous()
            try checkTorchErrors()
        }
    }

    var adapterParameters: [AdapterParameter] {
        [
            AdapterParameter("frod_lambda_l", diagonal), AdapterParameter("frod_lambda_s_values", values),
            AdapterParameter("base_model.frod_V.\(shared.category)", shared.v, isTrained: false),
            AdapterParameter("base_model.frod_s_indices.\(shared.category)", shared.indices, isTrained: false),
            AdapterParameter("base_model.frod_s_size.\(shared.category)", shared.size, isTrained: false),
        ]
    }

    func load(_ tensors: [String: Tensor]) throws {
        let size = diagonal.tensor.count
        let key = "base_model.frod_s_indices.\(shared.category)"
        try tensors[key].map { try $0.checkIndices(below: size, name: key) }
        for parameter in adapterParameters {
            if let value = tensors[parameter.key] { parameter.parameter.tensor.copy(from: value) }
        }
        let shape: [Int] = shared.size.tensor.array()
        guard shape == [size, size] else {
            throw PEFTError(
                "'base_model.frod_s_size.\(shared.category)' is \(shape), expected \([size, size]) for this model",
                remedy: "use the base model that the adapter was trained on")
        }
        try decompose()
    }

    /// S + diag(λ − λ₀), `[in, in]`
    private func middle(_ type: DType?) -> Tensor {
        let size = diagonal.tensor.count
        let change = diagonal.tensor.cast(type) - start.cast(type)
        // In fp64, which holds every position exactly.
        let rows = Tensor.arange(0, size, device: change.device).to(.float64)
        let indices = shared.indices.tensor.to(.float64)
        let flat = Tensor.concatenated([rows * Double(size + 1), indices[0] * Double(size) + indices[1]])
        let zeros = Tensor.zeros([size * size], dtype: change.dtype, device: change.device)
        return zeros.replacing(flat.to(.int64), with: Tensor.concatenated([change, values.tensor.cast(type)]))
            .reshaped(size, size)
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        let dropped = probability > 0 ? Functions.dropout(x, probability: probability, seed: seed) : x
        let coordinates = dropped.matmul(shared.v.tensor)
        return base(x) + Functions.linear(Functions.linear(coordinates, middle(nil)), u)
    }

    func merged(into weight: Tensor) throws -> Tensor {
        let update = u.to(.float64).matmul(middle(.float64)).matmul(shared.v.tensor.to(.float64).T)
        return (weight.to(.float64) + update).to(weight.dtype)
    }
}
