import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Arrow (Ostapenko et al. 2024): routes each token, at each projection, to those of several LoRA adapters whose direction its input
/// is most aligned with; y = x Wᵀ + Σₑ cₑ sₑ x Aₑᵀ Bₑᵀ, where c is the softmax of the k largest |x · vₑ| / T and vₑ the first right
/// singular vector of Bₑ Aₑ. With general adapters their mean A and B are subtracted from each A and B first (GenKnowSub).
///
/// It has no parameters beyond those of its adapters, and training doesn't change them.
package enum ArrowRouting: PEFTMethod {
    package static let name = "arrow"
    package static let peftType: String? = "ARROW"
    // Hugging Face PEFT's files are folders of all adapters, which `ArrowFolder` reads.
    package static let isReadableByHuggingFace = false
    package static let summary = "routing among LoRA adapters by their directions (Ostapenko et al. 2024)"
    package static let defaultLearningRate = 1e-3
    package static let isMergeable = false
    package static let start = AdapterStart.changed

    package struct Configuration: MethodConfiguration {
        var rank = 8
        /// Paths of the adapted projections.
        var targets: [String] = []
        /// Names of the adapters, and of the general ones.
        var tasks: [String] = []
        var general: [String] = []
        /// s of each adapter.
        var scales: [String: Double] = [:]
        /// Number of adapters k that a token gets.
        var topK = 3
        var temperature = 1.0
        /// Seed of the power iteration's first vector; 0 if `nil`.
        var seed: Int?

        package init() {}

        package static let fields: [ConfigurationField<Configuration>] = [
            .init("rank", key: "r", .integer(1...65536), help: "rank of the adapters") {
                .integer($0.rank)
            } write: {
                $0.rank = try integer($1)
            },
            .init("targets", key: "target_modules", .names, help: "paths of projections") {
                .array($0.targets.map { .string($0) })
            } write: {
                $0.targets = try names($1)
            },
            .init("scales", key: "scales", .numbersByPattern, help: "scales of the adapters") {
                .object($0.scales.mapValues { .wholeOr($0) })
            } write: {
                $0.scales = try $1.object.map { try $0.mapValues(number) } ?? [:]
            },
            .init("arrow", key: "arrow_config", .text, help: "settings of the routing") {
                $0.settings
            } write: {
                try $0.read(settings: $1)
            },
        ]

        /// The settings as Hugging Face PEFT writes them.
        private var settings: JSON {
            [
                "top_k": .integer(topK), "router_temperature": .wholeOr(temperature),
                "use_gks": .bool(!general.isEmpty),
                "rng_seed": seed.map { .integer($0) } ?? .null,
                "task_adapter_names": .array(tasks.map { .string($0) }),
                "gks_adapter_names": .array(general.map { .string($0) }),
            ]
        }

        mutating func read(settings: JSON) throws {
            let known = [
                "top_k", "router_temperature", "use_gks", "rng_seed", "task_adapter_names", "gks_adapter_names",
            ]
            guard let fields = settings.object else { throw PEFTError("it is not an object") }
            if let other = fields.keys.sorted().first(where: { !known.contains($0) }) {
                throw PEFTError("unknown setting '\(other)'", remedy: "use \(known.joined(separator: ", "))")
            }
            // A null is a JSON, so `nil` is written out.
            func value(_ key: String) -> JSON? { fields[key] == .null ? Optional<JSON>.none : fields[key] }
            topK = try value("top_k").map(integer) ?? 3
            temperature = try value("router_temperature").map(number) ?? 1
            seed = try value("rng_seed").map(integer)
            tasks = try value("task_adapter_names").map(names) ?? []
            general = try value("use_gks")?.bool == true ? value("gks_adapter_names").map(names) ?? [] : []
        }

        package func validate() throws {
            guard !tasks.isEmpty else {
                throw PEFTError("the routing has no adapters", remedy: "name them in task_adapter_names")
            }
            let all = tasks + general
            guard Set(all).count == all.count, !all.contains(where: { $0.isEmpty || $0.contains(".") }) else {
                throw PEFTError(
                    "the adapters are named \(all.joined(separator: ", "))",
                    remedy: "use different names without dots")
            }
            guard (1...tasks.count).contains(topK) else {
                throw PEFTError(
                    "top_k is \(topK), but the routing has \(counted(tasks.count, "adapter"))",
                    remedy: "use a value from 1 to \(tasks.count)")
            }
            guard temperature > 0, temperature.isFinite else {
                throw PEFTError("the routing's temperature is \(temperature)", remedy: "use a value above 0")
            }
            guard seed.map({ $0 >= 0 }) ?? true else {
                throw PEFTError("rng_seed is \(seed ?? 0)", remedy: "use 0 or more")
            }
            if let name = tasks.first(where: { scales[$0].map { !$0.isFinite } ?? true }) {
                throw PEFTError("the adapter '\(name)' has no finite scale", remedy: "combine the adapters again")
            }
        }
    }

    package static func label(_ configuration: Configuration) -> String {
        let general = configuration.general.isEmpty ? "" : " without \(configuration.general.count) general"
        return "Arrow, \(configuration.topK) of \(configuration.tasks.count) LoRAs\(general)"
    }

    package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
        let (rank, names) = (configuration.rank, configuration.tasks + configuration.general)
        return try TargetSelection(targets: configuration.targets).sites(in: model).map { site in
            let tensors = names.flatMap { name in
                [
                    TensorSpec("\(name).lora_A.weight", [rank, site.inputs], isTrained: false),
                    TensorSpec("\(name).lora_B.weight", [site.outputs, rank], isTrained: false),
                ]
            }
            return .linear(site.path, tensors) { linear, context in ArrowAdapter(linear, configuration, context) }
        }
    }
}

final class ArrowAdapter: Module, LinearAdapter, AdapterModule {
    /// A `[r, in]` and B `[out, r]` of an adapter.
    private struct Factors {
        let name: String
        let a: Parameter
        let b: Parameter
    }

    /// What tokens are routed with.
    private struct Routing {
        /// v of each adapter, `[adapters, in]`.
        let directions: Tensor
        /// All A `[adapters · r, in]` and all s Bᵀ `[adapters · r, out]`.
        let a: Tensor
        let b: Tensor
    }

    private let configuration: ArrowRouting.Configuration
    private let factors: [Factors]
    private var routing: Routing?

    init(_ linear: Linear, _ configuration: ArrowRouting.Configuration, _ context: AttachmentContext) {
        self.configuration = configuration
        factors = (configuration.tasks + configuration.general).map {
            Factors(
                name: $0, a: Parameter(context.zeros([configuration.rank, linear.inputs])),
                b: Parameter(context.zeros([linear.outputs, configuration.rank])))
        }
    }

    var adapterParameters: [AdapterParameter] {
        factors.flatMap {
            [
                AdapterParameter("\($0.name).lora_A.weight", $0.a, isTrained: false),
                AdapterParameter("\($0.name).lora_B.weight", $0.b, isTrained: false),
            ]
        }
    }

    func load(_ tensors: [String: Tensor]) throws {
        for parameter in adapterParameters {
            if let value = tensors[parameter.key] { parameter.parameter.tensor.copy(from: value) }
        }
        routing = nil
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let y = base(x)
        let routing = routing ?? withoutGradients { makeRouting() }
        self.routing = routing
        let (count, k) = (configuration.tasks.count, configuration.topK)
        let tokens = x.reshaped(-1, x.dim(-1)).to(routing.a.dtype)
        // Signs of singular vectors are arbitrary.
        let (largest, chosen) = tokens.matmul(routing.directions.T).abs().topK(k)
        let weights = (largest / configuration.temperature).softmax()
        let isChosen = chosen.unsqueezed(2).equal(to: .arange(0, count, device: x.device)).to(weights.dtype)
        let coefficients = (isChosen * weights.unsqueezed(2)).sum(axes: [1])
        let low = tokens.matmul(routing.a.T).reshaped(-1, count, configuration.rank) * coefficients.unsqueezed(2)
        let delta = low.reshaped(-1, count * configuration.rank).matmul(routing.b)
        return y + delta.reshaped(y.shape).to(y.dtype)
    }

    private func makeRouting() -> Routing {
        let general = factors.suffix(configuration.general.count)
        func purified(_ own: Tensor, _ part: (Factors) -> Tensor) -> Tensor {
            guard let first = general.first else { return own }
            let sum = general.dropFirst().reduce(part(first)) { $0 + part($1) }
            return own - sum / Double(general.count)
        }
        let tasks = factors.prefix(configuration.tasks.count).map { own in
            (
                a: purified(own.a.tensor.detached()) { $0.a.tensor.detached() },
                b: purified(own.b.tensor.detached()) { $0.b.tensor.detached() },
                scale: configuration.scales[own.name] ?? 1
            )
        }
        return Routing(
            directions: .concatenated(tasks.map { direction($0.a, $0.b).unsqueezed(0) }),
            a: .concatenated(tasks.map(\.a)), b: .concatenated(tasks.map { $0.b.T * $0.scale }))
    }

    /// The first right singular vector of B A by power iteration, with Hugging Face PEFT's first vector and number of steps.
    private func direction(_ a: Tensor, _ b: Tensor) -> Tensor {
        let (a32, b32) = (a.to(.float32), b.to(.float32))
        let inner = b32.T.matmul(b32)
        // Drawn on the CPU, so that the values are PyTorch's.
        let isMeta = a.device == .meta
        var vector = Tensor.zeros([a.dim(1)], device: isMeta ? .meta : .cpu)
        if !isMeta { vector.fillNormal(seed: UInt64(configuration.seed ?? 0)) }
        vector = vector.to(a.device)
        func normalized(_ v: Tensor) -> Tensor { v / (v.squared().sum().sqrt() + 1e-8) }
        vector = normalized(vector)
        for _ in 0..<15 { vector = normalized(a32.T.matmul(inner.matmul(a32.matmul(vector)))) }
        return vector.to(a.dtype)
    }

    func merged(into weight: Tensor) throws -> Tensor {
        throw PEFTError(
            "Arrow's routing depends on the token and can't be merged", remedy: "merge one of its adapters")
    }
}
