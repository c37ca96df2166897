import LanguageModels
import PEFTSupport

/// A method with its configuration, type-erased.
public struct MethodChoice: Sendable {
    private var configured: any ConfiguredMethod

    /// A method with its default options.
    public init(_ method: any PEFTMethod.Type) {
        func defaults<Method: PEFTMethod>(of method: Method.Type) -> any ConfiguredMethod {
            Configured<Method>(configuration: Method.defaults)
        }
        configured = defaults(of: method)
    }

    /// A method with these options.
    public init<Method: PEFTMethod>(_ method: Method.Type, _ configuration: Method.Configuration) {
        configured = Configured<Method>(configuration: configuration)
    }

    private init(_ configured: any ConfiguredMethod) { self.configured = configured }

    /// The method.
    public var method: any PEFTMethod.Type { configured.method }
    /// A value of the method's `Configuration` type.
    public var configuration: any MethodConfiguration { configured.configuration }

    /// Sets a field by its command-line name.
    /// - Throws: ``PEFTError`` for an unknown name or an invalid value.
    public mutating func set(_ name: String, to text: String) throws {
        configured = try configured.setting(name, to: text)
    }

    /// Sets a field by its name in `adapter_config.json`.
    mutating func set(key: String, to value: JSON) throws { configured = try configured.setting(key: key, to: value) }

    /// Name in reports, such as `LoRA r 8 (q, v)`.
    public var label: String { configured.label }

    /// Plans the method on a model.
    /// - Throws: ``PEFTError`` if the configuration doesn't fit the model.
    public func plan(for outline: ModelOutline) throws -> [Attachment] {
        // If the adapter unties the output layer, plan on the untied outline.
        let separates = separatesOutputLayer(of: outline)
        if separates { try checkTokens(of: outline) }
        let outline = separates ? outline.separatingOutputLayer : outline
        var attachments = try configured.plan(for: outline)
        attachments += try configuration.modulesToSave.attachments(for: outline, beside: attachments)
        // Every method trains modules without pretrained weights. Hugging Face's names of them lack a level for
        // methods that wrap no module.
        let wrapsNothing = !attachments.isEmpty && attachments.allSatisfy { [.input, .keyValues].contains($0.site) }
        let trained = Set(attachments.filter { $0.site == .parameter }.map(\.path))
        let inPlace = Set(attachments.filter { $0.site == .parameter && !$0.keepsBase }.map(\.path))
        if let frozen = outline.frozen.first(where: {
            $0.takesCopies ? inPlace.contains($0.path) : trained.contains($0.path)
        }) {
            throw PEFTError(
                "\(label) trains '\(frozen.path)', which is stored as \(frozen.storage) and can't be trained",
                remedy: "train an adapter such as lora, or load the base as fp32 (--weights, --embedding-weights)")
        }
        for parameter in outline.parameters where !trained.contains(parameter.path) {
            guard outline.newModules.contains(where: { parameter.path.hasPrefix($0 + ".") }) else { continue }
            let key = wrapsNothing ? "base_model." + parameter.path : nil
            attachments.append(.train(parameter.path, shape: parameter.shape, key: key))
        }
        return attachments
    }

    /// Whether adapters can be merged into the weights.
    public var isMergeable: Bool { method.isMergeable }
    package var baseStorage: WeightStorage? { method.baseStorage }

    /// The choice to store for a trained adapter.
    func forFile(of adapter: Adapter) -> MethodChoice { MethodChoice(configured.forFile(of: adapter)) }

    /// The method's training hook; `nil` if it needs none.
    func trainingHook(for adapter: Adapter) -> (any TrainingHook)? { configured.trainingHook(for: adapter) }

    /// The same choice with all model-dependent defaults filled in.
    package func resolved(for outline: ModelOutline) -> MethodChoice {
        MethodChoice(configured.resolved(for: outline))
    }

    /// Options of a method for help texts, which end with the default.
    package static func options(of method: any PEFTMethod.Type) -> [(name: String, help: String, isFlag: Bool)] {
        func options<Configuration: MethodConfiguration>(_ defaults: Configuration) -> [(
            name: String, help: String, isFlag: Bool
        )] {
            Configuration.fields.map {
                if case .flag = $0.kind {
                    ($0.name, $0.help(in: defaults), true)
                } else {
                    ($0.name, $0.help(in: defaults), false)
                }
            }
        }
        return options(MethodChoice(method).configuration)
    }
}
