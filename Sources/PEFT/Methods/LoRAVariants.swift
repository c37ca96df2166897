import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// The variants of LoRA that a configuration uses, with their settings.
package struct LoRAVariants: Sendable {
    /// All variants, in the order in which help lists their options. A label is formed by the initialization and then
    /// in this order.
    static let all: [any LoRAVariant.Type] = [
        DoRA.self, RsLoRA.self, ALoRA.self, KaSA.self, VeLoRA.self, BDLoRA.self, MonteCLoRA.self, Megatron.self,
        KaimingInitialization.self, RandomInitialization.self, GaussianInitialization.self,
        OrthogonalInitialization.self, PiSSA.self, OLoRA.self,
        MiCA.self, LoRAXS.self, CorDA.self, LoRAGA.self, LoRAPlus.self, EVA.self, LoftQ.self,
    ]
    static let initializations = all.compactMap { $0 as? any LoRAInitialization.Type }

    /// The variants that a configuration can use, ``all`` except in tests.
    private let types: [any LoRAVariant.Type]
    /// Settings that aren't the default ones, by type.
    private var settings: [ObjectIdentifier: any LoRAVariant] = [:]
    private var selected: any LoRAInitialization.Type = KaimingInitialization.self

    package init() { self.init(Self.all) }

    init(_ types: [any LoRAVariant.Type]) { self.types = types }

    /// The settings of a variant.
    package subscript<Variant: LoRAVariant>(_ type: Variant.Type) -> Variant {
        get { settings[ObjectIdentifier(type)] as? Variant ?? Variant() }
        set { settings[ObjectIdentifier(type)] = newValue }
    }

    /// How A and B are initialized. Settings of other initializations are kept.
    package var initialization: any LoRAInitialization {
        get { setting(selected) }
        set {
            selected = type(of: newValue)
            settings[ObjectIdentifier(selected)] = newValue
        }
    }

    private func setting(_ type: any LoRAInitialization.Type) -> any LoRAInitialization {
        func value<Variant: LoRAInitialization>(_ type: Variant.Type) -> any LoRAInitialization { self[type] }
        return value(type)
    }

    /// Whether a variant is on or, for an initialization, chosen.
    package func uses<Variant: LoRAVariant>(_ type: Variant.Type) -> Bool {
        ObjectIdentifier(type) == ObjectIdentifier(selected) || self[type].isEnabled
    }

    /// The initialization and all other variants that are on.
    var used: [any LoRAVariant] {
        let others = types.map { settings[ObjectIdentifier($0)] ?? $0.init() }
        return [initialization] + others.filter(\.isEnabled)
    }

    /// Whether adapted weights are W + s B A with the model's own W.
    var isPlain: Bool { used.allSatisfy(\.isPlain) }

    /// Ratio of B's learning rate to A's.
    var rateRatio: Double { used.map(\.rateRatio).reduce(1, *) }

    /// The divisor d of the scale s = α / d.
    func scaleDivisor(rank: Int) -> Double {
        used.lazy.compactMap { $0.scaleDivisor(rank: rank) }.first ?? Double(rank)
    }

    var trainsA: Bool { used.allSatisfy(\.trainsA) }
    var trainsB: Bool { used.allSatisfy(\.trainsB) }

    func addedTensors(rank: Int, inputs: Int, outputs: Int) -> [TensorSpec] {
        used.flatMap { $0.addedTensors(rank: rank, inputs: inputs, outputs: outputs) }
    }

    /// Shapes of A and B at a projection.
    func shapes(rank: Int, at site: ModelOutline.LinearSite) throws -> (a: [Int], b: [Int]) {
        for variant in used {
            if let shapes = try variant.shapes(rank: rank, at: site) { return shapes }
        }
        return ([rank, site.inputs], [site.outputs, rank])
    }

    /// The adapter of a projection.
    func adapter(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> any AdapterModule & LinearAdapter
    {
        for variant in used {
            if let adapter = try variant.adapter(over: linear, branch, context) { return adapter }
        }
        return LoRAAdapter(linear, branch, context)
    }

    // MARK: Fields

    /// The variants' options; `init` comes before those of the first initialization.
    static let fields: [ConfigurationField<LoRAVariants>] = {
        let first = all.firstIndex { $0 is any LoRAInitialization.Type }
        return all.enumerated().flatMap { ($0.offset == first ? [initializationField] : []) + $0.element.fields }
    }()

    private static let initializationField = ConfigurationField<LoRAVariants>(
        "init", key: "init_lora_weights", .text,
        help: "LoRA initialization: \(list(initializations.filter { $0.isOffered }))"
    ) {
        $0.initialization.json
    } write: {
        try $0.readInitialization($1)
    }

    private mutating func readInitialization(_ json: JSON) throws {
        for type in types.compactMap({ $0 as? any LoRAInitialization.Type }) {
            var candidate = setting(type)
            guard try candidate.read(json) else { continue }
            initialization = candidate
            return
        }
        throw PEFTError(
            "\(json.text(indent: nil)) is not a LoRA initialization", remedy: "use \(Self.list(Self.initializations))"
        )
    }

    /// The names, as in `a, b or c`.
    private static func list(_ types: [any LoRAInitialization.Type]) -> String {
        let names = types.map { $0.name }
        return names.dropLast().joined(separator: ", ") + " or " + (names.last ?? "")
    }
}

extension MethodConfiguration {
    /// The fields of LoRA's variants.
    static func variantFields(_ variants: WritableKeyPath<Self, LoRAVariants> & Sendable)
        -> [ConfigurationField<Self>]
    {
        LoRAVariants.fields.map { $0.within(variants) }
    }

    /// The variants' fields that change the scale.
    static func scalingFields(_ variants: WritableKeyPath<Self, LoRAVariants> & Sendable)
        -> [ConfigurationField<Self>]
    {
        LoRAVariants.all.flatMap { $0.scalingFields }.map { $0.within(variants) }
    }
}
