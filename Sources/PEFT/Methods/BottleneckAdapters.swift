import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Bottleneck adapters: y + s · (f(x Dᵀ + d) Uᵀ + u) where a sublayer's output y joins the residual stream, with D
/// `[r, size]` and U `[size, r]`; 2 · r · size + r + size parameters each.
///
/// In a sequential adapter x is the sublayer's output y (Houlsby et al. 2019, figure 2); in a parallel one it is the
/// sublayer's input (He et al. 2022, section 4). With ``readsStream`` it is the residual stream: after y has joined it, and
/// after the block's norm if that comes then (Pfeiffer et al. 2021, figure 5), or in a parallel adapter before the sublayer
/// and its norm, as AdapterHub has both. D is initialized uniformly in ±1/√size and U to zero, as by He et
/// al., so training starts exactly at the base model; Houlsby et al. start near it with both small.
public struct BottleneckConfiguration: BuiltInConfiguration {
    /// Bottleneck size r.
    public var rank = 64
    /// If set, r is the hidden size divided by it.
    public var reductionFactor: Int?
    /// Activation f.
    public var activation = "relu"
    /// Sublayers that get an adapter.
    public var sublayers: [SublayerKind] = SublayerKind.allCases
    /// Whether adapters are parallel to their sublayers.
    public var isParallel = false
    /// Scale s of the adapter's output.
    public var scale = 1.0
    /// Whether the scale is trained, starting at `scale`.
    public var learnsScale = false
    /// Whether adapters read the residual stream instead of the sublayer's output or input.
    public var readsStream = false

    /// The default options.
    public init() {}

    static let sublayerNames: [(kind: SublayerKind, name: String)] = [
        (.attention, "attention"), (.crossAttention, "cross-attention"), (.feedForward, "feed-forward"),
    ]
    static let activations = ["relu", "gelu", "gelu_new", "silu"]

    package func check() throws {
        guard (1...65536).contains(rank) else {
            throw PEFTError("the rank is \(rank)", remedy: "use a value from 1 to 65536")
        }
        guard reductionFactor.map({ $0 >= 1 }) ?? true else {
            throw PEFTError("the reduction factor is \(reductionFactor ?? 0)", remedy: "use 1 or more")
        }
        guard scale.isFinite, scale != 0 else {
            throw PEFTError("the scale is \(scale)", remedy: "use a finite value other than 0")
        }
        guard !sublayers.isEmpty else {
            throw PEFTError(
                "--sublayers is empty",
                remedy: "use one or more of \(Self.sublayerNames.map(\.name).joined(separator: ", "))")
        }
        guard Self.activations.contains(activation) else {
            throw PEFTError(
                "unknown activation '\(activation)'", remedy: "use one of \(Self.activations.joined(separator: ", "))"
            )
        }
    }

    func plan(for model: ModelOutline) throws -> [Attachment] {
        let sites = model.outputs.filter { sublayers.contains($0.kind) }
        guard !sites.isEmpty, let activation = Activation(huggingFaceName: activation) else {
            let kinds = Self.sublayerNames.filter { name in model.outputs.contains { $0.kind == name.kind } }.map(
                \.name)
            throw PEFTError(
                "this \(model.family) model has none of the sublayers in --sublayers",
                remedy: kinds.isEmpty ? "use another method" : "it has \(kinds.joined(separator: ", "))")
        }
        if readsStream, let site = sites.first(where: { !$0.knowsStream }) {
            throw PEFTError(
                "adapters at \(site.path) of this \(model.family) model can't read the residual stream",
                remedy: "remove --reads-stream")
        }
        return sites.map { site in
            let rank = rank(size: site.size)
            var tensors: [TensorSpec] = [
                .init("down.weight", [rank, site.size]), .init("down.bias", [rank]),
                .init("up.weight", [site.size, rank]), .init("up.bias", [site.size]),
            ]
            if learnsScale { tensors.append(.init("scale", [1])) }
            return .output(site.path, tensors) { output, context in
                BottleneckAdapter(output.size, rank: rank, activation: activation, self, context)
            }
        }
    }

    /// The bottleneck size at a site.
    private func rank(size: Int) -> Int { reductionFactor.map { max(1, size / $0) } ?? rank }

    /// An adapter of this configuration; `nil` for an unknown activation.
    func adapter(size: Int, _ context: AttachmentContext) -> BottleneckAdapter? {
        Activation(huggingFaceName: activation).map {
            BottleneckAdapter(size, rank: rank(size: size), activation: $0, self, context)
        }
    }

    func label(_ name: String) -> String {
        name + " " + (reductionFactor.map { "size/\($0)" } ?? "r \(rank)")
    }

    package enum Declaration: ConfigurationDeclaration {
        package static let fields: [ConfigurationField<BottleneckConfiguration>] = [
            .init("rank", key: "r", .integer(1...65536), help: "bottleneck size r") {
                .integer($0.rank)
            } write: {
                $0.rank = try integer($1)
            },
            .init(
                "reduction", key: "reduction_factor", .integer(1...65536),
                help: "reduction factor n: r is the hidden size / n"
            ) {
                $0.reductionFactor.map { .integer($0) } ?? .null
            } write: {
                $0.reductionFactor = try integer($1)
            },
            .init(
                "activation", key: "activation", .choice(activations),
                help: "activation between the two projections"
            ) {
                .string($0.activation)
            } write: {
                $0.activation = try text($1)
            },
            .init(
                "sublayers", key: "sublayers", .names,
                help: "sublayers to adapt: attention, cross-attention, feed-forward"
            ) {
                configuration in
                .array(sublayerNames.filter { configuration.sublayers.contains($0.kind) }.map { .string($0.name) })
            } write: { configuration, value in
                configuration.sublayers = try names(value).map { word in
                    guard let known = sublayerNames.first(where: { $0.name == word.lowercased() }) else {
                        throw PEFTError(
                            "unknown sublayer '\(word)'",
                            remedy: "use \(sublayerNames.map(\.name).joined(separator: ", "))")
                    }
                    return known.kind
                }
            },
            .init(
                "parallel", key: "is_parallel", .flag,
                help: "place the adapter parallel to the sublayer, not after it"
            ) {
                .bool($0.isParallel)
            } write: {
                $0.isParallel = try flag($1)
            },
            .init("scale", key: "scale", .number(-1e6...1e6), help: "scale of the adapter's output") {
                .wholeOr($0.scale)
            } write: {
                $0.scale = try number($1)
            },
            .init(
                "reads-stream", key: "reads_stream", .flag,
                help: "read the residual stream, as AdapterHub's Pfeiffer and parallel adapters do"
            ) {
                $0.readsStream ? true : .null
            } write: {
                $0.readsStream = $1 == .null ? false : try flag($1)
            },
            .init("learned-scale", key: "learned_scale", .flag, help: "train the scale too") {
                .bool($0.learnsScale)
            } write: {
                $0.learnsScale = try flag($1)
            },
        ]
    }
}

/// A bottleneck network at a sublayer's output.
final class BottleneckAdapter: Module, StreamAdapter, AdapterModule {
    /// D `[r, size]`, d `[r]`, U `[size, r]`, u `[size]`.
    @ParameterInfo var down: Tensor
    @ParameterInfo var downBias: Tensor
    @ParameterInfo var up: Tensor
    @ParameterInfo var upBias: Tensor
    /// A trained scalar scale, if the configuration asks for one.
    private let learnedScale: Parameter?
    private let scale: Double
    private let isParallel: Bool
    let readsStream: Bool
    private let activation: Activation

    init(
        _ size: Int, rank: Int, activation: Activation, _ configuration: BottleneckConfiguration,
        _ context: AttachmentContext
    ) {
        let (dtype, device) = (context.dtype, context.device)
        func zeros(_ shape: [Int]) -> Tensor { .zeros(shape, dtype: dtype, device: device) }
        let down = zeros([rank, size])
        let bound = 1 / Double(size).squareRoot()
        if device != .meta { down.fillUniform(-bound, bound, from: &context.random) }
        _down = ParameterInfo(wrappedValue: down, key: "down.weight")
        _downBias = ParameterInfo(wrappedValue: zeros([rank]), key: "down.bias")
        _up = ParameterInfo(wrappedValue: zeros([size, rank]), key: "up.weight")
        _upBias = ParameterInfo(wrappedValue: zeros([size]), key: "up.bias")
        (scale, isParallel) = (configuration.scale, configuration.isParallel)
        learnedScale =
            configuration.learnsScale
            ? Parameter(.full([1], configuration.scale, dtype: dtype, device: device)) : nil
        self.activation = activation
        readsStream = configuration.readsStream
    }

    override func ownParameters() -> [(key: String, parameter: Parameter)] {
        super.ownParameters() + (learnedScale.map { [("scale", $0)] } ?? [])
    }

    func callAsFunction(_ y: Tensor, input: Tensor) -> Tensor { added(to: y, from: isParallel ? input : nil) }

    func callAsFunction(_ y: Tensor, stream: ResidualStream) -> Tensor {
        added(to: y, from: isParallel ? stream.value : stream.joined(by: y))
    }

    /// What the adapter adds to a sublayer's output, for what it reads.
    func delta(of x: Tensor) -> Tensor { added(to: Tensor.zeros(like: x), from: x) }

    private func added(to y: Tensor, from x: Tensor?) -> Tensor {
        Functions.bottleneck(
            y, x: x, down: down, downBias: downBias, up: up, upBias: upBias,
            scale: scale, learnedScale: learnedScale?.tensor, activation: activation)
    }
}

/// Methods that are `BOTTLENECK` with other defaults.
package protocol BottleneckMethod: PEFTMethod where Configuration == BottleneckConfiguration {
    static var title: String { get }
}

extension BottleneckMethod {
    package static var peftType: String? { "BOTTLENECK" }
    package static var isReadableByHuggingFace: Bool { false }
    package static var defaultLearningRate: Double { 1e-3 }
    package static var isMergeable: Bool { false }
    package static func label(_ configuration: BottleneckConfiguration) -> String { configuration.label(title) }
    package static func plan(_ configuration: BottleneckConfiguration, for model: ModelOutline) throws -> [Attachment]
    {
        try configuration.plan(for: model)
    }
}

/// Bottleneck adapters after every sublayer (Houlsby et al. 2019).
public enum Houlsby: BuiltInMethod {
    package enum Implementation: BottleneckMethod {
        package static let name = "houlsby"
        package static let title = "Houlsby adapters"
        package static let summary = "bottleneck adapters after every sublayer (Houlsby et al. 2019)"
    }
}

/// Bottleneck adapters after the feed-forward sublayers only (Pfeiffer et al. 2021).
public enum Pfeiffer: BuiltInMethod {
    package enum Implementation: BottleneckMethod {
        package static let name = "pfeiffer"
        package static let title = "Pfeiffer adapters"
        package static let summary = "bottleneck adapters after the feed-forward sublayers (Pfeiffer et al. 2021)"
        package static var defaults: BottleneckConfiguration {
            var configuration = BottleneckConfiguration()
            configuration.sublayers = [.feedForward]
            return configuration
        }
        package static func recognizes(_ json: [String: JSON]) -> Bool {
            json["is_parallel"]?.bool != true && json["sublayers"] == ["feed-forward"]
        }
    }
}

/// Bottleneck adapters parallel to the feed-forward sublayers, scaled by 4 (He et al. 2022).
public enum ParallelAdapters: BuiltInMethod {
    package enum Implementation: BottleneckMethod {
        package static let name = "parallel"
        package static let title = "parallel adapters"
        package static let summary = "bottleneck adapters parallel to the feed-forward sublayers (He et al. 2022)"
        package static var defaults: BottleneckConfiguration {
            var configuration = BottleneckConfiguration()
            configuration.sublayers = [.feedForward]
            configuration.isParallel = true
            configuration.scale = 4
            return configuration
        }
        package static func recognizes(_ json: [String: JSON]) -> Bool { json["is_parallel"]?.bool == true }
    }
}
