import Support
import Torch
import TorchNN

/// How LoRA's matrices are initialized, what else is trained and at which learning rate: the settings that
/// distinguish DoRA, LoRA+, PiSSA, OLoRA, EVA and LoftQ from LoRA.
public struct LoRAVariant: Sendable {
    /// `init_lora_weights` in Hugging Face's files.
    public enum Initialization: Sendable, Equatable {
        /// A Kaiming uniform, B zero.
        case standard
        /// A normal with standard deviation 1/r, B zero.
        case gaussian
        /// A Kaiming uniform and B normal: ΔW starts as noise, for tests.
        case random
        /// Semi-orthogonal A and B with A Bᵀ = 0 (even ranks).
        case orthogonal
        /// The weight's principal singular vectors, subtracted from it (PiSSA; Meng et al. 2024). `nil` is the exact
        /// SVD; a number is the iteration count of a randomized SVD in Hugging Face's files.
        case pissa(iterations: Int?)
        /// The leading part of the weight's QR decomposition, subtracted from it (OLoRA; Büyükakyüz 2024).
        case olora
        /// The principal directions of the projection's inputs (EVA; Paischer et al. 2024).
        case eva
        /// The error of quantizing the weight to NF4 (LoftQ; Li et al. 2023).
        case loftq

        var json: JSON {
            switch self {
            case .standard: true
            case .gaussian: "gaussian"
            case .random: false
            case .orthogonal: "orthogonal"
            case .pissa(nil): "pissa"
            case .pissa(let iterations?): .string("pissa_niter_\(iterations)")
            case .olora: "olora"
            case .eva: "eva"
            case .loftq: "loftq"
            }
        }

        init(_ json: JSON) throws {
            switch json {
            case true, "true", "default", "kaiming": self = .standard
            case false, "false", "random": self = .random
            case "gaussian": self = .gaussian
            case "orthogonal": self = .orthogonal
            case "pissa": self = .pissa(iterations: nil)
            case "olora": self = .olora
            case "eva": self = .eva
            case "loftq": self = .loftq
            case .string(let text) where text.hasPrefix("pissa_niter_"):
                guard let iterations = Int(text.dropFirst("pissa_niter_".count)), iterations >= 0 else {
                    throw PEFTError(
                        "'\(text)' has no number of iterations", remedy: "use a form such as pissa_niter_4")
                }
                self = .pissa(iterations: iterations)
            default:
                throw PEFTError(
                    "\(json.text(indent: nil)) is not a LoRA initialization",
                    remedy: "use true, false, gaussian, orthogonal, pissa, olora, eva or loftq")
            }
        }

        /// Whether the base weight is changed, which an adapter file must not rely on.
        public var replacesWeight: Bool {
            switch self {
            case .pissa, .olora, .loftq: true
            default: false
            }
        }
    }

    public var initialization = Initialization.standard
    /// Whether a magnitude vector is trained (DoRA; Liu et al. 2024).
    public var isDoRA = false
    /// LoRA+: the ratio of B's learning rate to A's (Hayou et al. 2024).
    public var rateRatio = 1.0
    /// EVA: the maximum rank of a projection as a multiple of the configured rank.
    public var evaRho = 2.0
    /// LoftQ: alternations between quantization and SVD.
    public var loftqIterations = 1

    public init() {}
}

extension MethodConfiguration {
    /// The fields of LoRA's variants.
    static func variantFields(_ variant: WritableKeyPath<Self, LoRAVariant> & Sendable)
        -> [ConfigurationField<Self>]
    {
        [
            .init("dora", key: "use_dora", .flag, help: "train a magnitude vector too (DoRA)") {
                .bool($0[keyPath: variant].isDoRA)
            } write: {
                $0[keyPath: variant].isDoRA = try flag($1)
            },
            .init(
                "init", key: "init_lora_weights", .text,
                help: "LoRA initialization: true, gaussian, orthogonal, pissa, olora, eva or loftq (true)"
            ) {
                $0[keyPath: variant].initialization.json
            } write: {
                $0[keyPath: variant].initialization = try .init($1)
            },
            .init(
                "lr-ratio", key: "swift_peft_lr_ratio", .number(0.001...1e6),
                help: "ratio of B's learning rate to A's (LoRA+)", isExtension: true
            ) {
                $0[keyPath: variant].rateRatio == 1 ? .null : .wholeOr($0[keyPath: variant].rateRatio)
            } write: {
                $0[keyPath: variant].rateRatio = try number($1)
            },
            .init(
                "eva-rho", key: "eva_config", .number(1...1000),
                help: "EVA: maximum rank of a projection as a multiple of the rank (2)"
            ) {
                $0[keyPath: variant].initialization == .eva
                    ? [
                        "rho": .number($0[keyPath: variant].evaRho), "tau": 0.99, "whiten": false,
                        "use_label_mask": true, "label_mask_value": -100, "adjust_scaling_factors": true,
                    ] : .null
            } write: {
                $0[keyPath: variant].evaRho = try number($1["rho"] ?? $1)
            },
            .init(
                "loftq-iterations", key: "loftq_config", .integer(1...100),
                help: "LoftQ: iterations of quantization and SVD (1)"
            ) {
                $0[keyPath: variant].initialization == .loftq
                    ? ["loftq_bits": 4, "loftq_iter": .integer($0[keyPath: variant].loftqIterations)] : [:]
            } write: {
                if case .object(let settings) = $1 {
                    guard let bits = settings["loftq_bits"]?.int else { return }
                    guard bits == 4 else { throw PEFTError("'loftq_bits' is \(bits)", remedy: "use 4") }
                    $0[keyPath: variant].loftqIterations = try integer(settings["loftq_iter"] ?? 1)
                } else {
                    $0[keyPath: variant].loftqIterations = try integer($1)
                }
            },
        ]
    }
}

/// A method that is LoRA with other settings: its own name and defaults, and LoRA's plan, fields and files.
public protocol LoRAFamily: PEFTMethod where Configuration == LoRA.Configuration {
    /// Changes LoRA's defaults to this method's.
    static func configure(_ configuration: inout LoRA.Configuration)
}

extension LoRAFamily {
    public static var peftType: String? { LoRA.peftType }
    public static var defaultLearningRate: Double { LoRA.defaultLearningRate }
    public static var defaults: LoRA.Configuration {
        var configuration = LoRA.Configuration()
        configure(&configuration)
        return configuration
    }
    public static func label(_ configuration: LoRA.Configuration) -> String { LoRA.label(configuration) }
    public static func resolved(_ configuration: LoRA.Configuration, for model: ModelOutline) -> LoRA.Configuration {
        LoRA.resolved(configuration, for: model)
    }
    public static func plan(_ configuration: LoRA.Configuration, for model: ModelOutline) throws -> [Attachment] {
        try LoRA.plan(configuration, for: model)
    }
    public static func trainingHook(_ configuration: LoRA.Configuration, for adapter: Adapter)
        -> (any TrainingHook)?
    {
        LoRA.trainingHook(configuration, for: adapter)
    }
    public static func fileConfiguration(_ configuration: LoRA.Configuration, of adapter: Adapter)
        -> LoRA.Configuration
    {
        LoRA.fileConfiguration(configuration, of: adapter)
    }
}
