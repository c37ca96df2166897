import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Torch
import TorchNN

/// A tensor that a method adds, declared in the plan before it is allocated.
public struct TensorSpec: Sendable, Equatable {
    /// Name below the site's path in Hugging Face's files; a name that starts with `base_model.`, or belongs to a
    /// site without a path in those files (`prompt_embeddings`), is the full name.
    package let key: String
    /// The shape of the trained tensor.
    package let shape: [Int]
    /// Whether it is trained.
    package let isTrained: Bool
    /// Whether the adapter file contains it.
    package let isStored: Bool
    /// Shape in the file, if it differs from the trained tensor's.
    package let fileShape: [Int]
    /// Full names under which a file may contain copies, for modules that share the tensor.
    package let copies: [String]
    /// Full names of transposed copies.
    package let transposedCopies: [String]
    /// Whether it contains integers, such as positions.
    package let isIndex: Bool

    /// - Parameters:
    ///   - key: the name below the site's path.
    ///   - shape: the shape of the trained tensor.
    ///   - isTrained: whether it is trained.
    ///   - isStored: whether the adapter file contains it.
    ///   - fileShape: the shape in the file, if it differs.
    ///   - copies: full names of copies in a file, for modules that share the tensor.
    ///   - transposedCopies: full names of transposed copies.
    ///   - isIndex: whether it contains integers, such as positions.
    public init(
        _ key: String, _ shape: [Int], isTrained: Bool = true, isStored: Bool = true, fileShape: [Int]? = nil,
        copies: [String] = [], transposedCopies: [String] = [], isIndex: Bool = false
    ) {
        (self.key, self.shape, self.isTrained, self.isStored) = (key, shape, isTrained, isStored)
        self.isIndex = isIndex
        (self.fileShape, self.copies, self.transposedCopies) = (fileShape ?? shape, copies, transposedCopies)
    }

    /// Number of elements.
    package var count: Int { shape.reduce(1, *) }
}

/// One change to a model in a method's plan.
public struct Attachment {
    /// What a method attaches to.
    package enum Site: String, Sendable, CaseIterable {
        case linear, embedding, output, input, keyValues, experts
        /// A tensor of the model itself.
        case parameter
    }

    /// What it attaches to.
    package let site: Site
    /// Path of the site's module or of the parameter.
    public let path: String
    /// The tensors that it adds, or the one that it trains.
    public let tensors: [TensorSpec]
    /// Whether the original values are saved, so the adapter can be detached.
    package let keepsBase: Bool
    /// The target among the modules and parameters at ``path``.
    private let find: (Module?, Parameter?) throws -> Target

    /// The part of a model that an attachment changes.
    enum Target {
        case parameter(Parameter)
        case site(any AdapterSite, make: (AttachmentContext) throws -> any AdapterModule)
    }

    private init<Place: AdapterSite>(
        _ site: Site, _ path: String, _ tensors: [TensorSpec],
        make: @escaping (Place, AttachmentContext) throws -> any AdapterModule
    ) {
        (self.site, self.path, self.tensors, keepsBase) = (site, path, tensors, true)
        find = { module, _ in
            guard let place = module as? Place else {
                throw Self.mismatch(at: path, expected: "\(Place.self)", found: module.map { "\(type(of: $0))" })
            }
            return .site(place) { try make(place, $0) }
        }
    }

    private init(training path: String, _ spec: TensorSpec, keepsBase: Bool) {
        (site, self.path, tensors, self.keepsBase) = (.parameter, path, [spec], keepsBase)
        find = { module, parameter in
            guard let parameter else {
                throw Self.mismatch(at: path, expected: "Parameter", found: module.map { "\(type(of: $0))" })
            }
            return .parameter(parameter)
        }
    }

    /// What a model has at ``path``.
    /// - Throws: ``PEFTError`` if it has nothing there, or a module of another type.
    func target(modules: [String: Module], parameters: [String: Parameter]) throws -> Target {
        try find(modules[path], parameters[path])
    }

    private static func mismatch(at path: String, expected: String, found: String?) -> PEFTError {
        PEFTError(
            "the method's plan expects type \(expected) at '\(path)', but the model has \(found ?? "nothing") there",
            remedy: "plan with paths of the model's ModelOutline")
    }

    /// An adapter over the projection at `path`.
    public static func linear(
        _ path: String, _ tensors: [TensorSpec],
        make: @escaping (Linear, AttachmentContext) throws -> any AdapterModule & LinearAdapter
    ) -> Attachment { Attachment(.linear, path, tensors, make: make) }

    /// An adapter over the embedding at `path`.
    public static func embedding(
        _ path: String, _ tensors: [TensorSpec],
        make: @escaping (Embedding, AttachmentContext) throws -> any AdapterModule & EmbeddingAdapter
    ) -> Attachment { Attachment(.embedding, path, tensors, make: make) }

    /// An adapter over the experts' projection at `path`, whose tensors have full names.
    package static func experts(
        _ path: String, _ tensors: [TensorSpec],
        make: @escaping (ExpertLinear, AttachmentContext) throws -> any AdapterModule & ExpertAdapter
    ) -> Attachment { Attachment(.experts, path, tensors, make: make) }

    /// A bottleneck network at the output of the sublayer at `path`.
    public static func output(
        _ path: String, _ tensors: [TensorSpec],
        make: @escaping (OutputSite, AttachmentContext) throws -> any AdapterModule & OutputAdapter
    ) -> Attachment { Attachment(.output, path, tensors, make: make) }

    /// Virtual tokens before the input of the stack of layers at `path`.
    public static func input(
        _ path: String, _ tensors: [TensorSpec],
        make: @escaping (InputSite, AttachmentContext) throws -> any AdapterModule & InputAdapter
    ) -> Attachment { Attachment(.input, path, tensors, make: make) }

    /// Keys and values prepended in the attention at `path`.
    public static func keyValues(
        _ path: String, _ tensors: [TensorSpec],
        make: @escaping (KeyValueSite, AttachmentContext) throws -> any AdapterModule & KeyValueAdapter
    ) -> Attachment { Attachment(.keyValues, path, tensors, make: make) }

    /// Trains one of the model's own tensors.
    ///
    /// - Parameters:
    ///   - path: the tensor's path in the model.
    ///   - shape: the tensor's shape, for counting and checking.
    ///   - key: its name in the adapter file; by default `base_model.model.` and its path.
    ///   - keepsBase: whether a copy is trained and the original values are restored when the adapter is detached.
    ///   - copies: its names in modules that share it.
    public static func train(
        _ path: String, shape: [Int], key: String? = nil, keepsBase: Bool = true, copies: [String] = []
    ) -> Attachment {
        let spec = TensorSpec(key ?? AdapterKeys.prefix + path, shape, copies: copies)
        return Attachment(training: path, spec, keepsBase: keepsBase)
    }

    /// The full name of a tensor in the adapter file.
    package func fileKey(_ key: String) -> String { AdapterKeys.full(key, site: site, path: path) }
}

/// Tensor names in Hugging Face's adapter files.
enum AdapterKeys {
    static let prefix = "base_model.model."

    static func full(_ key: String, site: Attachment.Site, path: String) -> String {
        if key.hasPrefix("base_model.") { return key }
        switch site {
        case .linear, .embedding, .output: return "\(prefix)\(path).\(key)"
        case .input, .keyValues, .parameter, .experts: return key
        }
    }
}

/// What a method may use while it creates its adapters.
public final class AttachmentContext {
    /// The source of initial values, with the adapter's seed.
    public var random: SeededRandom
    /// The model.
    public let model: any LanguageModel
    /// Tokenizer for prompts initialized from a text; `nil` if none is available.
    public let tokenizer: Tokenizer?
    /// Whether values are loaded from a file next, so that costly initialization can be skipped.
    public let isLoading: Bool
    private var shared: [String: Any] = [:]

    init(model: any LanguageModel, tokenizer: Tokenizer?, seed: UInt64, isLoading: Bool) {
        (self.model, self.tokenizer, self.isLoading) = (model, tokenizer, isLoading)
        random = SeededRandom(seed: seed, stream: 0xADA9)
    }

    /// A value that several sites share, created on first use.
    public func shared<Value>(_ name: String, _ make: () throws -> Value) rethrows -> Value {
        if let known = shared[name] as? Value { return known }
        let value = try make()
        shared[name] = value
        return value
    }

    /// Where the adapter's tensors belong.
    public var device: Device { model.device }
    /// Adapters of half-precision bases are trained in fp32, as optimizer updates are smaller than a bf16 step.
    public var dtype: DType {
        model.firstParameter { $0.tensor.dtype.isFloatingPoint }?.tensor.dtype == .float64
            ? .float64 : .float32
    }
}

/// One tensor of an adapter module.
public struct AdapterParameter {
    /// As in ``TensorSpec/key``.
    package let key: String
    /// The tensor.
    package let parameter: Parameter
    package let isTrained: Bool
    package let isStored: Bool
    /// Learning-rate factor (LoRA+).
    package let rateFactor: Double

    /// - Parameters:
    ///   - key: as in ``TensorSpec/key``.
    ///   - parameter: the tensor.
    ///   - isTrained: whether it is trained.
    ///   - isStored: whether the adapter file contains it.
    ///   - rateFactor: factor of the learning rate.
    public init(
        _ key: String, _ parameter: Parameter, isTrained: Bool = true, isStored: Bool = true, rateFactor: Double = 1
    ) {
        (self.key, self.parameter, self.rateFactor) = (key, parameter, rateFactor)
        (self.isTrained, self.isStored) = (isTrained, isStored)
    }
}

/// A module that a method attaches to one site.
public protocol AdapterModule: Module {
    /// All tensors, matching the plan's ``TensorSpec``s; by default the module's parameters under their names.
    var adapterParameters: [AdapterParameter] { get }
    /// The contents of the adapter file, by ``TensorSpec/key``; by default the stored parameters.
    func storedTensors() -> [String: Tensor]
    /// Loads the contents of a file whose names and shapes have been checked.
    func load(_ tensors: [String: Tensor]) throws
}

extension AdapterModule {
    /// The module's parameters under their names.
    public var adapterParameters: [AdapterParameter] { parameters().map { AdapterParameter($0.path, $0.parameter) } }

    /// The stored parameters.
    public func storedTensors() -> [String: Tensor] {
        adapterParameters.reduce(into: [:]) { if $1.isStored { $0[$1.key] = $1.parameter.tensor } }
    }

    /// Copies the values into the parameters.
    public func load(_ tensors: [String: Tensor]) throws {
        for parameter in adapterParameters {
            if let value = tensors[parameter.key] { parameter.parameter.tensor.copy(from: value) }
        }
    }
}
