import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Circular convolution adaptation (Chen et al. 2024, section 3.3): ΔW consists of circulant blocks of size b, each given
/// by one trained kernel of b values and divided by the number of inputs.
public enum C3A: BuiltInMethod {
    /// Initial values of the kernels.
    public enum Start: String, CaseIterable, Sendable {
        case xavier = "xavier_uniform"
        case kaiming = "kaiming_uniform"
        case gaussian
        case zero = "true"
    }

    /// Options of ``C3A``.
    public struct Configuration: TargetedConfiguration {
        /// Block size b.
        public var blockSize = 256
        /// Block sizes of modules whose path matches a pattern.
        public var blockSizePattern: [String: Double] = [:]
        /// Initial values of the kernels.
        public var start = Start.xavier
        /// Target modules; the defaults of the model's family if there are none.
        public var selection = TargetSelection(targets: [])

        /// The default options.
        public init() {}

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                [
                    integerField(
                        "block-size", key: "block_size", \.blockSize, 1...65536,
                        help: "block size, a divisor of all inputs and outputs"),
                    patternField(
                        "block-size-pattern", key: "block_size_pattern", \.blockSizePattern,
                        help: "block sizes for matching modules: pattern=size,…"),
                    .init(
                        "init", key: "init_weights", .choice(Start.allCases.map(\.rawValue)),
                        help:
                            "kernels: xavier_uniform, kaiming_uniform, gaussian, or zero (true) (default: xavier_uniform)"
                    ) {
                        $0.start == .zero ? true : .string($0.start.rawValue)
                    } write: {
                        if let flag = $1.bool { return $0.start = flag ? .zero : .xavier }
                        guard let start = Start(rawValue: try text($1)) else {
                            throw PEFTError(
                                "\($1.text(indent: nil)) is not an initialization of C3A",
                                remedy: "use xavier_uniform, kaiming_uniform, gaussian or true")
                        }
                        $0.start = start
                    },
                ] + selectionFields(hasExclusions: false)

            package static let neutral: [String: [JSON]] = ["bias": ["none"]]
        }
    }

    package enum Implementation: TargetedMethod {
        package typealias Configuration = C3A.Configuration
        package static let name = "c3a"
        package static let peftType: String? = "C3A"
        package static let summary = "circulant blocks, which are circular convolutions (Chen et al. 2024)"
        package static let defaultLearningRate = 1e-1
        package static let start = AdapterStart.changed

        package static func label(_ configuration: Configuration) -> String {
            "C3A b \(configuration.blockSize) (\(configuration.selection.label))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            try sites(configuration, in: model).map { site in
                let size = try TargetSelection.count(
                    for: site.path, in: configuration.blockSizePattern, usual: configuration.blockSize)
                try requireDivisor(size, of: site, option: "block-size")
                return .linear(
                    site.path, [.init("c3a_kernel", [site.outputs / size, site.inputs / size, size])]
                ) { linear, context in
                    C3AAdapter(linear, configuration, size: size, context)
                }
            }
        }
    }
}

final class C3AAdapter: Module, WeightDelta {
    /// `[out / b, in / b, b]`.
    @ParameterInfo(key: "c3a_kernel") var kernels: Tensor = .zeros([0])
    /// Index into a kernel of each entry of its block, `[b · b]`: entry (u, t) has index t − u mod b.
    private let order: Tensor
    private let size: Int

    init(_ linear: Linear, _ configuration: C3A.Configuration, size: Int, _ context: AttachmentContext) {
        self.size = size
        order = context.shared("c3a \(size)") {
            Tensor((0..<size).flatMap { u in (0..<size).map { ($0 - u + size) % size } }, device: context.device)
        }
        super.init()
        let shape = [linear.outputs / size, linear.inputs / size, size]
        kernels =
            switch configuration.start {
            case .zero: context.zeros(shape)
            case .gaussian: context.normal(shape)
            case .xavier: context.uniform(shape, bound: (6 / Double(linear.inputs + linear.outputs)).squareRoot())
            case .kaiming: context.uniform(shape, bound: 1 / Double(linear.inputs).squareRoot())
            }
    }

    func delta(_ cast: (Tensor) -> Tensor) -> Tensor {
        let kernels = cast(kernels)
        let (rows, columns) = (kernels.dim(0), kernels.dim(1))
        // Formed as a matrix, as other deltas are; the convolution could also be an FFT of the activations.
        let blocks = kernels.selecting(axis: 2, order).reshaped(rows, columns, size, size).permuted(0, 2, 1, 3)
        return blocks.reshaped(rows * size, columns * size) * (1 / Double(columns * size))
    }
}
