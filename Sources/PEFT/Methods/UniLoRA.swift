import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Uni-LoRA (Li et al. 2025): all LoRA factors of a model are one trained vector θ `[length]` seen through a sparse
/// random projection with orthonormal columns: each element of A and B is one element of θ, divided by the square
/// root of how often that one is used.
public enum UniLoRA: BuiltInMethod {
    /// Options of ``UniLoRA``.
    public struct Configuration: TargetedConfiguration {
        /// Rank r of A and B.
        public var rank = 4
        /// Number of trained values.
        public var length = 256
        /// Seed of the projection, for NumPy's generator.
        public var seed = 42
        /// Dropout probability of the branch's input.
        public var dropout = 0.0
        /// Initial values of θ are uniform in ±`bound`.
        public var bound = 0.02
        /// Whether the file contains the projection; otherwise it is regenerated from the seed.
        public var savesIndices = false
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "rank of A and B"),
                    integerField(
                        "vector-length", key: "theta_d_length", \.length, 1...1_000_000_000,
                        help: "number of trained values"),
                    integerField(
                        "projection-key", key: "proj_seed", \.seed, 0...Int.max, help: "seed of the projection"),
                    numberField(
                        "dropout", key: "unilora_dropout", \.dropout, 0...0.99, help: "dropout on the branch's input"),
                    numberField(
                        "init-bound", key: "init_theta_d_bound", \.bound, 0...1e3,
                        help: "bound of the initial values"),
                    flagField(
                        "save-indices", key: "save_indices", \.savesIndices, help: "store the projection in the file"),
                ] + targetFields(\.selection) + layerFields(\.selection)

            package static let neutral: [String: [JSON]] = [
                "bias": ["none"], "fan_in_fan_out": [false, true], "init_weights": [true, false],
            ]
        }
    }

    static let vectorKey = "base_model.unilora_theta_d"

    /// Which element of θ each element of all factors is, as Hugging Face PEFT draws it: all elements equally often.
    final class RandomProjection {
        let indices: [Int]
        /// 1/√(number of uses) of each element of θ; 0 for those that aren't used.
        let scales: [Float]

        init(_ configuration: Configuration, count: Int) {
            let (length, seed) = (configuration.length, configuration.seed)
            var generator = NumPyGenerator(seed: UInt64(seed))
            let uses = count / length
            var indices = (0..<(uses * length)).map { $0 / max(1, uses) }
            if count % length > 0 { indices += generator.choice(count % length, below: length) }
            generator.shuffle(&indices)
            var counts = [Int](repeating: 0, count: length)
            for index in indices { counts[index] += 1 }
            self.indices = indices
            scales = counts.map { $0 > 0 ? 1 / Float($0).squareRoot() : 0 }
        }
    }

    final class UniLoRAAdapter: Module, LowRankDelta {
        /// θ `[length]`, shared by all projections.
        private let vector: Parameter
        /// Indices into θ (int64) and factors of A `[r, in]` and B `[out, r]`.
        private let indices: (a: Parameter, b: Parameter)
        private let scales: (a: Parameter, b: Parameter)
        private let isStored: Bool
        let dropoutRate: Double

        init(
            _ linear: Linear, _ configuration: Configuration, _ vector: Parameter, _ projection: RandomProjection,
            _ range: Range<Int>, _ context: AttachmentContext
        ) {
            (self.vector, isStored, dropoutRate) = (vector, configuration.savesIndices, configuration.dropout)
            let split = range.lowerBound + configuration.rank * linear.inputs
            func factor(_ part: Range<Int>, _ shape: [Int]) -> (indices: Parameter, scales: Parameter) {
                guard context.device != .meta else {
                    return (
                        Parameter(.empty(shape, dtype: .int64, device: .meta)),
                        Parameter(.empty(shape, dtype: context.dtype, device: .meta))
                    )
                }
                let own = projection.indices[part]
                return (
                    Parameter(Tensor(Array(own), shape: shape, device: context.device)),
                    Parameter(
                        Tensor(own.map { projection.scales[$0] }, shape: shape, device: context.device)
                            .to(context.dtype))
                )
            }
            let a = factor(range.lowerBound..<split, [configuration.rank, linear.inputs])
            let b = factor(split..<range.upperBound, [linear.outputs, configuration.rank])
            indices = (a.indices, b.indices)
            scales = (a.scales, b.scales)
            super.init()
        }

        var adapterParameters: [AdapterParameter] {
            [AdapterParameter(vectorKey, vector)]
                + (isStored
                    ? [
                        AdapterParameter("unilora_indices_A", indices.a, isTrained: false),
                        AdapterParameter("unilora_indices_B", indices.b, isTrained: false),
                        AdapterParameter("unilora_scales_A", scales.a, isTrained: false),
                        AdapterParameter("unilora_scales_B", scales.b, isTrained: false),
                    ] : [])
        }

        func load(_ tensors: [String: Tensor]) throws {
            for key in ["unilora_indices_A", "unilora_indices_B"] {
                try tensors[key].map { try $0.checkIndices(below: vector.tensor.count, name: key) }
            }
            for parameter in adapterParameters {
                if let value = tensors[parameter.key] { parameter.parameter.tensor.copy(from: value) }
            }
        }

        func factors(_ cast: (Tensor) -> Tensor) -> (a: Tensor, b: Tensor) {
            let values = cast(vector.tensor)
            func factor(_ indices: Parameter, _ scales: Parameter) -> Tensor {
                let shape = indices.tensor.shape
                return values.selecting(indices.tensor.reshaped(-1)).reshaped(shape) * scales.tensor.to(values.dtype)
            }
            return (factor(indices.a, scales.a), factor(indices.b, scales.b))
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = UniLoRA.Configuration
        package static let name = "unilora"
        package static let peftType: String? = "UNILORA"
        package static let summary = "all LoRA factors share the elements of one trained vector (Li et al. 2025)"
        package static let defaultLearningRate = 1e-2
        // θ is random, and so are A and B.
        package static let start = AdapterStart.changed

        package static func label(_ configuration: Configuration) -> String {
            "Uni-LoRA r \(configuration.rank), \(configuration.length) values (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let sites = try resolved(configuration, for: model).selection.sites(in: model)
            let (rank, stores) = (configuration.rank, configuration.savesIndices)
            let count = sites.reduce(0) { $0 + rank * ($1.inputs + $1.outputs) }
            guard count <= 1 << 31 else {
                throw PEFTError(
                    "Uni-LoRA's factors have \(count) elements", remedy: "use a smaller rank or fewer targets")
            }
            var start = 0
            return sites.map { site in
                let sizes = (a: [rank, site.inputs], b: [site.outputs, rank])
                let range = start..<(start + rank * (site.inputs + site.outputs))
                start = range.upperBound
                let stored =
                    stores
                    ? [
                        TensorSpec("unilora_indices_A", sizes.a, isTrained: false, isIndex: true),
                        TensorSpec("unilora_indices_B", sizes.b, isTrained: false, isIndex: true),
                        TensorSpec("unilora_scales_A", sizes.a, isTrained: false),
                        TensorSpec("unilora_scales_B", sizes.b, isTrained: false),
                    ] : []
                return .linear(site.path, [.init(vectorKey, [configuration.length])] + stored) { linear, context in
                    let vector = context.shared("unilora vector") {
                        let values = context.zeros([configuration.length])
                        if context.device != .meta {
                            values.fillUniform(-configuration.bound, configuration.bound, from: &context.random)
                        }
                        return Parameter(values)
                    }
                    let projection = context.shared("unilora projection") {
                        RandomProjection(configuration, count: context.device == .meta ? 0 : count)
                    }
                    return UniLoRAAdapter(linear, configuration, vector, projection, range, context)
                }
            }
        }
    }
}
