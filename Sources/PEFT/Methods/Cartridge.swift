import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Cartridges (Eyuboglu et al. 2025): learned keys and values prepended in each self-attention, as in prefix tuning, of
/// which the first tokens' stay frozen as an attention sink.
public enum Cartridge: BuiltInMethod {
    /// Options of ``Cartridge``.
    public struct Configuration: BuiltInConfiguration {
        /// The virtual tokens.
        public var tokens = VirtualTokens(stacks: nil)
        /// Number of first tokens that aren't trained.
        public var frozen = 1

        /// The default options.
        public init() {}

        package func check() throws {
            try tokens.validate()
            guard frozen < tokens.count else {
                throw PEFTError(
                    "\(frozen) of \(counted(tokens.count, "virtual token")) are frozen",
                    remedy: "use a num_frozen_tokens below num_virtual_tokens")
            }
        }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                tokenFields(\.tokens) + [
                    integerField(
                        "frozen-tokens", key: "num_frozen_tokens", \.frozen, 0...100_000,
                        help: "number of first tokens that are not trained")
                ]
            package static let neutral: [String: [JSON]] = ["modules_to_save": [[]]]
        }
    }

    /// All keys and values, `[tokens, 2 · layers · size]`, in two parts.
    final class Vectors {
        let frozen: Parameter?
        let trained: Parameter

        init(count: Int, frozen: Int, width: Int, _ context: AttachmentContext) {
            let parts = context.random([count, width], fan: nil).split(axis: 0, [frozen, count - frozen])
            self.frozen = frozen > 0 ? Parameter(parts[0].clone()) : nil
            trained = Parameter(parts[1].clone())
        }

        var all: Tensor { frozen.map { Tensor.concatenated([$0.tensor, trained.tensor]) } ?? trained.tensor }

        /// Key and value `range` of all tokens.
        func columns(_ range: Range<Int>) -> Tensor {
            let own = trained.tensor.narrowed(axis: 1, range)
            return frozen.map { Tensor.concatenated([$0.tensor.narrowed(axis: 1, range), own]) } ?? own
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = Cartridge.Configuration
        package static let name = "cartridge"
        package static let peftType: String? = "CARTRIDGE"
        package static let summary = "a trained key-value cache with frozen first tokens (Eyuboglu et al. 2025)"
        package static let defaultLearningRate = 1e-2
        package static let start = AdapterStart.changed
        package static let isMergeable = false

        package static func label(_ configuration: Configuration) -> String {
            "cartridge, \(counted(configuration.tokens.count, "token"))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.tokens = PrefixLayout.resolved(configuration.tokens, for: model)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            try configuration.validate()
            let tokens = resolved(configuration, for: model).tokens
            let layout = try PrefixLayout(tokens, of: model, method: name)
            let (width, frozen) = (layout.shape[1], configuration.frozen)
            return layout.sites.enumerated().map { layer, site in
                let stored = TensorSpec(Prefix.output, [tokens.count - frozen, width], fileShape: layout.shape)
                return .keyValues(site.path, layer == 0 ? [stored] : []) { place, context in
                    let vectors = context.shared("cartridge") {
                        Vectors(count: tokens.count, frozen: frozen, width: width, context)
                    }
                    return CartridgeAdapter(
                        vectors, entry: layout.entries[layer], size: layout.size, heads: place.heads,
                        isFirst: layer == 0)
                }
            }
        }
    }
}

/// One attention's part of a cartridge.
final class CartridgeAdapter: Module, KeyValueAdapter, AdapterModule {
    private let vectors: Cartridge.Vectors
    private let columns: Range<Int>
    private let heads: Int
    private let isFirst: Bool

    init(_ vectors: Cartridge.Vectors, entry: Int, size: Int, heads: Int, isFirst: Bool) {
        (self.vectors, self.heads, self.isFirst) = (vectors, heads, isFirst)
        columns = (entry * size)..<((entry + 2) * size)
    }

    var adapterParameters: [AdapterParameter] {
        isFirst ? [AdapterParameter(Prefix.output, vectors.trained)] : []
    }

    func storedTensors() -> [String: Tensor] {
        isFirst ? [Prefix.output: withoutGradients { vectors.all.detached() }] : [:]
    }

    func load(_ tensors: [String: Tensor]) throws {
        guard let all = tensors[Prefix.output] else { return }
        let split = vectors.frozen?.tensor.dim(0) ?? 0
        vectors.frozen?.tensor.copy(from: all.narrowed(axis: 0, 0..<split))
        vectors.trained.tensor.copy(from: all.narrowed(axis: 0, split..<all.dim(0)))
    }

    func keysAndValues() -> (keys: Tensor, values: Tensor) {
        PrefixAdapter.divided(vectors.columns(columns), heads: heads)
    }
}
