import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Activated LoRA (Greenewald et al. 2025): the branch acts on the tokens from the last occurrence of an invocation on,
/// so that keys and values of earlier tokens are the base model's. In a text without the invocation it does nothing.
public struct ALoRA: BuiltInMethod, LoRAVariant {
    /// The token ids of the invocation; none if the variant is off.
    package var invocation: [Int] = []

    package init() {}

    package var isEnabled: Bool { !invocation.isEmpty }

    package static let fields: [ConfigurationField<LoRAVariants>] = [
        .init(
            "invocation-tokens", key: "alora_invocation_tokens", .integers,
            help: "token ids from whose last occurrence on the adapter acts (aLoRA)", isExtension: true
        ) {
            let tokens = $0[ALoRA.self].invocation
            return tokens.isEmpty ? .null : .array(tokens.map { .integer($0) })
        } write: {
            let tokens = try integers($1)
            guard tokens.allSatisfy({ $0 >= 0 }) else {
                throw PEFTError(
                    "'alora_invocation_tokens' has a negative token", remedy: "use token ids of the vocabulary")
            }
            $0[ALoRA.self].invocation = tokens
        }
    ]

    package func label(_ name: String) -> String { "a" + name }

    package func validate(beside variants: LoRAVariants) throws {
        guard variants.used.allSatisfy({ $0.isPlain || $0 is ALoRA }) else {
            throw PEFTError(
                "an invocation can't be combined with DoRA or an initialization that changes the weight",
                remedy: "remove --invocation-tokens or the other option")
        }
    }

    package func validate(embedding path: String, isTied: Bool) throws {
        throw PEFTError(
            "an adapter with an invocation can't adapt the embedding '\(path)'",
            remedy: "remove it from the targets, or remove --invocation-tokens")
    }

    package func validate(_ linears: [ModelOutline.LinearSite], of model: ModelOutline) throws {
        guard model.architecture == .decoder, model.head.task == .causalLM else {
            throw PEFTError(
                "an adapter with an invocation (alora_invocation_tokens) needs a decoder-only model that generates text, not this \(model.family) model",
                remedy: "remove --invocation-tokens, or use another base")
        }
        // The output layer runs on the positions that are read, not on texts.
        if linears.contains(where: { $0.path == model.outputLayer }) {
            throw PEFTError(
                "an adapter with an invocation can't adapt the output layer '\(model.outputLayer)'",
                remedy: "remove it from the targets, or remove --invocation-tokens")
        }
    }

    package var isPlain: Bool { false }
    package var supportsBias: Bool { true }

    package func adapter(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & LinearAdapter)?
    { ActivatedLoRAAdapter(linear, branch, invocation: invocation, context) }

    package enum Implementation: LoRAFamily {
        package static let name = "alora"
        package static let summary = "LoRA that acts from an invocation in the text on (Greenewald et al. 2025)"
        package static let isMergeable = false

        package static func configure(_ configuration: inout LoRA.Configuration) {}

        package static func recognizes(_ json: [String: JSON]) -> Bool {
            json["alora_invocation_tokens"]?.array?.isEmpty == false
        }

        package static func plan(_ configuration: LoRA.Configuration, for model: ModelOutline) throws -> [Attachment]
        {
            guard configuration.variants[ALoRA.self].isEnabled else {
                throw PEFTError("the method alora has no invocation", remedy: "set --invocation-tokens")
            }
            return try LoRA.plan(configuration, for: model)
        }
    }
}

extension MethodChoice {
    /// The tokens from whose last occurrence in a prompt on an adapter acts; empty if it acts on all tokens.
    package var invocation: [Int] { (configuration as? LoRA.Configuration)?.variants[ALoRA.self].invocation ?? [] }
}

extension Adapter {
    /// The tokens from whose last occurrence in a prompt on the adapter acts; empty if it acts on all tokens.
    package var invocation: [Int] { choice.invocation }

    /// Whether keys and values before the invocation are the base's, as nothing but activated branches was added.
    package var actsFromInvocation: Bool {
        !invocation.isEmpty && trained.isEmpty && attached.allSatisfy { $0.adapter is ActivatedLoRAAdapter }
    }
}

/// A LoRA branch of the tokens after an invocation.
final class ActivatedLoRAAdapter: LoRAAdapter {
    private let invocation: [Int]

    init(_ linear: Linear, _ branch: LoRABranch, invocation: [Int], _ context: AttachmentContext) {
        self.invocation = invocation
        super.init(linear, branch, context)
    }

    override var lowRankFactors: LowRankFactors? { nil }
    override var isDelta: Bool { false }

    override func activity(of x: Tensor) -> InvocationScope.Mask {
        InvocationScope.mask(of: invocation, tokens: x.dim(0))
    }

    override func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        switch activity(of: x) {
        case .all: return super.callAsFunction(x, base: base)
        case .none where !areGradientsEnabled: return base(x)
        // Zero inputs give zero gradients, which a step without any invocation needs.
        case .none: return branch(of: x * 0, onto: base(x))
        case .some(let mask): return branch(of: x * mask.to(x.dtype), onto: base(x))
        }
    }

    override func merged(into weight: Tensor) throws -> Tensor {
        throw PEFTError(
            "an adapter with an invocation can't be merged: it doesn't act on all tokens",
            remedy: "keep it as an adapter")
    }
}
