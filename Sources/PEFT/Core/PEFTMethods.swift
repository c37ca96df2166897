import LanguageModels
import Support
import Synchronization

/// All methods, in the order in which help lists them. To add a method, add a file in `Methods/` and a line here, or
/// call ``PEFTMethods/register(_:)`` from another package.
public enum PEFTMethods {
    static let builtIn: [any PEFTMethod.Type] = [
        LoRA.self, QLoRA.self, RsLoRA.self, LoRAPlus.self, DoRA.self, PiSSA.self, OLoRA.self, EVA.self, LoftQ.self,
        QALoRA.self,
        AdaLoRA.self, VeRA.self, LoHa.self, LoKr.self, OFT.self, BOFT.self, IA3.self, TrainableTokens.self,
        PromptTuning.self, PTuning.self, PrefixTuning.self, MultitaskPromptTuning.self,
        Houlsby.self, Pfeiffer.self, ParallelAdapters.self,
        LayerNormTuning.self, BitFit.self, Selective.self, HeadTraining.self, FullFineTuning.self,
    ]

    private static let registered = Mutex<[any PEFTMethod.Type]>([])

    /// Built-in and registered methods.
    public static var all: [any PEFTMethod.Type] { builtIn + registered.withLock { $0 } }

    /// Registers a method for lookup by name, in files and on the command line.
    public static func register(_ method: any PEFTMethod.Type) {
        registered.withLock { methods in
            if !methods.contains(where: { $0 == method }) { methods.append(method) }
        }
    }

    /// The method with a given name.
    /// - Throws: ``PEFTError`` with the nearest match for an unknown name.
    public static func named(_ name: String) throws -> any PEFTMethod.Type {
        if let method = all.first(where: { $0.name == name.lowercased() }) { return method }
        let names = all.map { $0.name }
        let hint = nearestName(to: name, in: names).map { "did you mean '\($0)'?" }
        throw PEFTError("unknown method '\(name)'", remedy: hint ?? "use one of \(names.joined(separator: ", "))")
    }

    /// The method that an `adapter_config.json` belongs to.
    /// - Throws: ``PEFTError`` if its `peft_type` is missing or unsupported.
    public static func method(of json: [String: JSON], file: String) throws -> any PEFTMethod.Type {
        guard let type = json["peft_type"]?.string else {
            throw PEFTError("\(file) has no 'peft_type'", remedy: "pass the adapter_config.json of an adapter")
        }
        let candidates = all.filter { $0.peftType == type.uppercased() }
        // Variants come after their base method and recognize their own files.
        if let method = candidates.last(where: { $0.recognizes(json) }) ?? candidates.first { return method }
        var names: [String] = []
        for name in all.compactMap({ $0.peftType }) where !names.contains(name) { names.append(name) }
        throw PEFTError(
            "unsupported peft_type '\(type)'", remedy: "supported types are \(names.joined(separator: ", "))")
    }
}

/// A method with its configuration, type-erased.
public struct MethodChoice: Sendable {
    public let method: any PEFTMethod.Type
    public private(set) var configuration: any MethodConfiguration

    public init(_ method: any PEFTMethod.Type) {
        self.method = method
        configuration = Self.defaults(of: method)
    }

    public init<Method: PEFTMethod>(_ method: Method.Type, _ configuration: Method.Configuration) {
        self.method = method
        self.configuration = configuration
    }

    private static func defaults<Method: PEFTMethod>(of method: Method.Type) -> any MethodConfiguration {
        Method.defaults
    }

    /// Sets a field by its command-line name.
    /// - Throws: ``PEFTError`` for an unknown name or an invalid value.
    public mutating func set(_ name: String, to text: String) throws {
        func apply<Configuration: MethodConfiguration>(_ configuration: Configuration) throws
            -> any MethodConfiguration
        {
            var copy = configuration
            try copy.set(name, to: text)
            return copy
        }
        configuration = try apply(configuration)
    }

    public var label: String {
        func label<Method: PEFTMethod>(_ method: Method.Type) -> String {
            (configuration as? Method.Configuration).map(Method.label) ?? Method.name
        }
        return label(method)
    }

    /// Plans the method on a model.
    /// - Throws: ``PEFTError`` if the configuration doesn't fit the model.
    public func plan(for outline: ModelOutline) throws -> [Attachment] {
        // If the adapter unties the output layer, plan on the untied outline.
        let outline = separatesOutputLayer(of: outline) ? outline.separatingOutputLayer : outline
        func plan<Method: PEFTMethod>(_ method: Method.Type) throws -> [Attachment] {
            guard let configuration = configuration as? Method.Configuration else { return [] }
            try configuration.validate()
            return try Method.plan(configuration, for: outline)
        }
        var attachments = try plan(method)
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

    public var isMergeable: Bool { method.isMergeable }
    public var baseStorage: WeightStorage? { method.baseStorage }

    /// The choice to store for a trained adapter.
    func forFile(of adapter: Adapter) -> MethodChoice {
        func choice<Method: PEFTMethod>(_ method: Method.Type) -> MethodChoice {
            guard let configuration = configuration as? Method.Configuration else { return self }
            return MethodChoice(method, Method.fileConfiguration(configuration, of: adapter))
        }
        return choice(method)
    }

    /// The method's training hook; `nil` if it needs none.
    func trainingHook(for adapter: Adapter) -> (any TrainingHook)? {
        func hook<Method: PEFTMethod>(_ method: Method.Type) -> (any TrainingHook)? {
            (configuration as? Method.Configuration).flatMap { Method.trainingHook($0, for: adapter) }
        }
        return hook(method)
    }

    /// The same choice with all model-dependent defaults filled in.
    public func resolved(for outline: ModelOutline) -> MethodChoice {
        func resolved<Method: PEFTMethod>(_ method: Method.Type) -> MethodChoice {
            guard let configuration = configuration as? Method.Configuration else { return self }
            return MethodChoice(method, Method.resolved(configuration, for: outline))
        }
        return resolved(method)
    }

    /// Options of a method for help texts: name, help.
    public static func options(of method: any PEFTMethod.Type) -> [(name: String, help: String, isFlag: Bool)] {
        func options<Method: PEFTMethod>(_ method: Method.Type) -> [(name: String, help: String, isFlag: Bool)] {
            Method.Configuration.fields.map {
                if case .flag = $0.kind { ($0.name, $0.help, true) } else { ($0.name, $0.help, false) }
            }
        }
        return options(method)
    }
}
