import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// A way in which LoRA varies: another initialization, scale, branch or learning rate. A value holds the variant's
/// settings. Each variant is one file with one line in ``LoRAVariants/all``.
///
/// Every requirement but `init` has a default, which is LoRA's own behavior.
package protocol LoRAVariant: Sendable {
    /// The default settings, with which the variant is off.
    init()
    /// Options of the variant, beside those of other variants.
    static var fields: [ConfigurationField<LoRAVariants>] { get }
    /// Options that change the scale, which help lists after `--alpha`.
    static var scalingFields: [ConfigurationField<LoRAVariants>] { get }
    /// Whether its settings turn it on. Initializations are chosen by ``LoRAVariants/initialization`` instead.
    var isEnabled: Bool { get }

    // MARK: Configuration

    /// Changes the name in labels, such as `LoRA`.
    func label(_ name: String) -> String
    /// - Throws: ``PEFTError`` for a rank that the variant doesn't support, or for its own settings.
    func validate(rank: Int) throws
    /// - Throws: ``PEFTError`` for variants that can't be combined with this one.
    func validate(beside variants: LoRAVariants) throws
    /// - Throws: ``PEFTError`` if an embedding can't be adapted.
    /// - Parameter isTied: whether its delta is also that of the tied output layer.
    func validate(embedding path: String, isTied: Bool) throws
    /// - Throws: ``PEFTError`` if these projections of the model can't be adapted.
    func validate(_ linears: [ModelOutline.LinearSite], of model: ModelOutline) throws
    /// The divisor d of the scale s = α / d; `nil` for LoRA's, the rank.
    func scaleDivisor(rank: Int) -> Double?
    /// Whether the adapted weight is W + s B A with the model's own W, as `--slices` and other file formats assume.
    var isPlain: Bool { get }
    /// Whether the branch may have a bias (`--lora-bias`); by default if ``isPlain``.
    var supportsBias: Bool { get }

    // MARK: Branch

    /// Ratio of B's learning rate to A's.
    var rateRatio: Double { get }
    /// Whether A is trained.
    var trainsA: Bool { get }
    /// Whether B is trained.
    var trainsB: Bool { get }
    /// Tensors beside A and B, over a module of these sizes.
    func addedTensors(rank: Int, inputs: Int, outputs: Int) -> [TensorSpec]
    /// Shapes of A and B at a projection in place of `[r, in]` and `[out, r]`; `nil` for those.
    /// - Throws: ``PEFTError`` if the projection can't have them.
    func shapes(rank: Int, at site: ModelOutline.LinearSite) throws -> (a: [Int], b: [Int])?
    /// The adapter of a projection; `nil` for LoRA's.
    func adapter(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & LinearAdapter)?
    /// The adapter of an embedding; `nil` for LoRA's.
    func adapter(over table: Embedding, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & EmbeddingAdapter)?

    // MARK: Training and files

    func trainingHook(for adapter: Adapter) -> (any TrainingHook)?
    /// The configuration to store for a trained adapter.
    func fileConfiguration(_ configuration: LoRA.Configuration, of adapter: Adapter) -> LoRA.Configuration
    /// What a user has to know about an adapter with this `adapter_config.json`.
    static func note(on configuration: [String: JSON]) -> String?
}

extension LoRAVariant {
    package static func note(on configuration: [String: JSON]) -> String? { nil }
    package static var fields: [ConfigurationField<LoRAVariants>] { [] }
    package static var scalingFields: [ConfigurationField<LoRAVariants>] { [] }
    package func label(_ name: String) -> String { name }
    package func validate(rank: Int) throws {}
    package func validate(beside variants: LoRAVariants) throws {}
    package func validate(embedding path: String, isTied: Bool) throws {}
    package func validate(_ linears: [ModelOutline.LinearSite], of model: ModelOutline) throws {}
    package var supportsBias: Bool { isPlain }
    package func scaleDivisor(rank: Int) -> Double? { nil }
    package var isPlain: Bool { true }
    package var rateRatio: Double { 1 }
    package var trainsA: Bool { true }
    package var trainsB: Bool { true }
    package func addedTensors(rank: Int, inputs: Int, outputs: Int) -> [TensorSpec] { [] }
    package func shapes(rank: Int, at site: ModelOutline.LinearSite) throws -> (a: [Int], b: [Int])? { nil }
    package func adapter(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & LinearAdapter)?
    { nil }
    package func adapter(over table: Embedding, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & EmbeddingAdapter)?
    { nil }
    package func trainingHook(for adapter: Adapter) -> (any TrainingHook)? { nil }
    package func fileConfiguration(_ configuration: LoRA.Configuration, of adapter: Adapter) -> LoRA.Configuration {
        configuration
    }
}

/// How A and B are initialized: a value of `init_lora_weights` in Hugging Face's files.
package protocol LoRAInitialization: LoRAVariant {
    /// Its value in files and on the command line.
    static var name: String { get }
    /// Whether help offers it for new adapters; others are read from files, or serve tests.
    static var isOffered: Bool { get }
    /// Its value in files with settings that belong to it; by default the name.
    var json: JSON { get }
    /// Takes settings from a value of `init_lora_weights`.
    /// - Returns: whether the value is this initialization's.
    mutating func read(_ json: JSON) throws -> Bool
    /// Whether the base weight is changed, which an adapter file must not rely on.
    var replacesWeight: Bool { get }
    /// Fills A `[r, in]` and B `[out, r]`, which is zero; by default A is Kaiming uniform.
    func initialize(a: Tensor, b: Tensor, from random: inout SeededRandom)
}

extension LoRAInitialization {
    package static var isOffered: Bool { true }
    package var isEnabled: Bool { false }
    package var json: JSON { .string(Self.name) }
    package mutating func read(_ json: JSON) throws -> Bool { json == .string(Self.name) }
    package var replacesWeight: Bool { false }
    package var isPlain: Bool { !replacesWeight }
    package func initialize(a: Tensor, b: Tensor, from random: inout SeededRandom) {
        KaimingInitialization.fill(a, from: &random)
    }
}

/// The LoRA branch of one module: its rank, scale and what its variants set.
package struct LoRABranch: Sendable {
    /// Path of the module.
    package let path: String
    /// The rank r.
    package let rank: Int
    /// The scale s of B A.
    package let scale: Double
    /// Dropout probability of the input.
    package let dropout: Double
    /// Ratio of B's learning rate to A's.
    package let rateRatio: Double
    package let initialization: any LoRAInitialization
    /// Whether B is trained.
    package let trainsB: Bool
}
