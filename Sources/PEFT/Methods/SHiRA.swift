import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Sparse high-rank adapters (Bhardwaj et al. 2024, section 3): r (in + out) entries of the weight are trained, at random
/// positions that the file contains.
public enum SHiRA: BuiltInMethod {
    /// Options of ``SHiRA``.
    public struct Configuration: TargetedConfiguration {
        /// r; a projection gets r (in + out) entries, as many as LoRA's factors of rank r.
        public var rank = 32
        /// Seed of the positions, drawn as in Hugging Face PEFT; from the run's seed if `nil`.
        public var seed: Int?
        /// How the positions were chosen; those of a file don't depend on it.
        public var mask = "random"
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    rankField(\.rank, help: "trained entries per input and output"),
                    .init(
                        "mask-seed", key: "random_seed", .integer(0...Int.max),
                        help: "seed of the positions (default: the run's)"
                    ) {
                        $0.seed.map { .integer($0) } ?? .null
                    } write: {
                        $0.seed = try integer($1)
                        guard ($0.seed ?? 0) >= 0 else {
                            throw PEFTError("the seed is negative", remedy: "use a value of at least 0")
                        }
                    },
                    .init(
                        "mask", key: "mask_type", .choice(["random"]),
                        help: "choice of the positions (default: random)"
                    ) {
                        .string($0.mask)
                    } write: {
                        $0.mask = try text($1)
                    },
                ] + selectionFields(hasExclusions: false, hasLayers: false)

            package static let neutral: [String: [JSON]] = [
                "fan_in_fan_out": [false, true], "init_weights": [true, false],
            ]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = SHiRA.Configuration
        package static let name = "shira"
        package static let peftType: String? = "SHIRA"
        package static let summary = "random entries of the weight (Bhardwaj et al. 2024)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String {
            "SHiRA r \(configuration.rank) (\(configuration.selection.label))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.selection = configuration.selection.resolved(for: model, defaults: \.veraOrLoRA)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            try sites(configuration, in: model).map { site in
                let count = configuration.rank * (site.inputs + site.outputs)
                guard count <= site.inputs * site.outputs else {
                    throw PEFTError(
                        "SHiRA of rank \(configuration.rank) needs \(count) entries, more than \(site.path) has",
                        remedy: "use --rank \(site.inputs * site.outputs / (site.inputs + site.outputs)) or less")
                }
                return .linear(
                    site.path,
                    [
                        .init("shira_weight", [count]),
                        .init("shira_indices", [2, count], isTrained: false, isIndex: true),
                    ]
                ) { linear, context in
                    SHiRAAdapter(linear, configuration, count: count, context)
                }
            }
        }
    }
}

final class SHiRAAdapter: Module, WeightDelta {
    /// `[count]`, initially 0.
    @ParameterInfo(key: "shira_weight") var values: Tensor = .zeros([0])
    /// Rows and columns, int32 `[2, count]`.
    @ParameterInfo(key: "shira_indices") var indices: Tensor = .zeros([0])
    private let inputs: Int
    private let outputs: Int
    /// Flat positions, int64 `[count]`.
    private var positions: Tensor

    init(_ linear: Linear, _ configuration: SHiRA.Configuration, count: Int, _ context: AttachmentContext) {
        (inputs, outputs) = (linear.inputs, linear.outputs)
        positions = .empty([count], dtype: .int64, device: context.device)
        super.init()
        values = context.zeros([count])
        guard context.device != .meta else {
            indices = .empty([2, count], dtype: .int32, device: .meta)
            return
        }
        // A file brings its own positions.
        let chosen =
            context.isLoading
            ? Array(0..<count)
            : RandomEntries.positions(
                count, of: outputs * inputs, seed: configuration.seed.map { UInt64($0) } ?? context.random.next()
            ).sorted()
        let pairs = chosen.map { Int32($0 / inputs) } + chosen.map { Int32($0 % inputs) }
        indices = Tensor(pairs, shape: [2, count]).to(context.device)
        positions = Tensor(chosen, device: context.device)
    }

    var adapterParameters: [AdapterParameter] {
        parameters().map { AdapterParameter($0.path, $0.parameter, isTrained: $0.path == "shira_weight") }
    }

    func load(_ tensors: [String: Tensor]) throws {
        if let value = tensors["shira_weight"] { values.copy(from: value) }
        guard let value = tensors["shira_indices"] else { return }
        let flat: [Int] = value.to(.int64).array()
        let (rows, columns) = (flat.prefix(flat.count / 2), flat.suffix(flat.count / 2))
        let isInside =
            rows.allSatisfy { (0..<outputs).contains($0) } && columns.allSatisfy { (0..<inputs).contains($0) }
        let chosen = isInside ? zip(rows, columns).map { $0 * inputs + $1 } : []
        guard isInside, Set(chosen).count == chosen.count else {
            throw PEFTError(
                "'shira_indices' are not distinct positions of a weight [\(outputs), \(inputs)]",
                remedy: "use the base model that the adapter was trained on")
        }
        indices.copy(from: value)
        positions = Tensor(chosen, device: positions.device)
    }

    func delta(_ cast: (Tensor) -> Tensor) -> Tensor {
        RandomEntries.matrix(cast(values), at: positions, rows: outputs, columns: inputs)
    }
}
