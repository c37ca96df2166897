import LanguageModels
import Support
import Tokenizers
import Torch
import TorchNN

/// A tensor that a method adds: declared by the plan before it exists.
public struct TensorSpec: Sendable, Equatable {
    /// Name below the site's path in Hugging Face's files; a name that begins with `base_model.` or belongs to a
    /// site without a place in those names (`prompt_embeddings`) stands for itself.
    public let key: String
    public let shape: [Int]
    /// Whether training changes it.
    public let isTrained: Bool
    /// Whether the adapter's file holds it.
    public let isStored: Bool
    /// The shape in the file, where it isn't that of what is trained.
    public let fileShape: [Int]
    /// Full names under which a file may hold copies, for modules that share the tensor.
    public let copies: [String]
    /// The same, for copies that are transposed.
    public let transposedCopies: [String]

    public init(
        _ key: String, _ shape: [Int], isTrained: Bool = true, isStored: Bool = true, fileShape: [Int]? = nil,
        copies: [String] = [], transposedCopies: [String] = []
    ) {
        (self.key, self.shape, self.isTrained, self.isStored) = (key, shape, isTrained, isStored)
        (self.fileShape, self.copies, self.transposedCopies) = (fileShape ?? shape, copies, transposedCopies)
    }

    public var count: Int { shape.reduce(1, *) }
}

/// One change to a model that a method asks for.
public struct Attachment {
    public enum Site: String, Sendable, CaseIterable {
        case linear, embedding, output, input, keyValues
        /// A tensor of the model itself.
        case parameter
    }

    public let site: Site
    /// Path of the site's module, or of the parameter.
    public let path: String
    public let tensors: [TensorSpec]
    /// Whether the values of before are kept, so that the adapter can be taken off again.
    public let keepsBase: Bool
    let make: (Module, AttachmentContext) throws -> (any AdapterModule)?

    private init<Place: Module>(
        _ site: Site, _ path: String, _ tensors: [TensorSpec], keepsBase: Bool = true,
        make: @escaping (Place, AttachmentContext) throws -> (any AdapterModule)?
    ) {
        (self.site, self.path, self.tensors, self.keepsBase) = (site, path, tensors, keepsBase)
        self.make = { module, context in try (module as? Place).flatMap { try make($0, context) } }
    }

    /// An adapter over the projection at `path`.
    public static func linear(
        _ path: String, _ tensors: [TensorSpec],
        make: @escaping (Linear, AttachmentContext) throws -> any AdapterModule & LinearAdapter
    ) -> Attachment { Attachment(.linear, path, tensors, make: make) }

    /// An adapter over the table of vectors at `path`.
    public static func embedding(
        _ path: String, _ tensors: [TensorSpec],
        make: @escaping (Embedding, AttachmentContext) throws -> any AdapterModule & EmbeddingAdapter
    ) -> Attachment { Attachment(.embedding, path, tensors, make: make) }

    /// A network at the output of the sublayer at `path`.
    public static func output(
        _ path: String, _ tensors: [TensorSpec],
        make: @escaping (OutputSite, AttachmentContext) throws -> any AdapterModule & OutputAdapter
    ) -> Attachment { Attachment(.output, path, tensors, make: make) }

    /// Virtual tokens before the input of the stack at `path`.
    public static func input(
        _ path: String, _ tensors: [TensorSpec],
        make: @escaping (InputSite, AttachmentContext) throws -> any AdapterModule & InputAdapter
    ) -> Attachment { Attachment(.input, path, tensors, make: make) }

    /// Keys and values before those of the attention at `path`.
    public static func keyValues(
        _ path: String, _ tensors: [TensorSpec],
        make: @escaping (KeyValueSite, AttachmentContext) throws -> any AdapterModule & KeyValueAdapter
    ) -> Attachment { Attachment(.keyValues, path, tensors, make: make) }

    /// A tensor of the model itself is trained.
    ///
    /// - Parameters:
    ///   - shape: the tensor's, for counting and checking.
    ///   - key: its name in the adapter's file, `base_model.model.` and its path if not given.
    ///   - keepsBase: whether a copy is trained and the model's own values come back when the adapter is taken off.
    ///   - copies: its names for modules that share it.
    public static func train(
        _ path: String, shape: [Int], key: String? = nil, keepsBase: Bool = true, copies: [String] = []
    ) -> Attachment {
        let spec = TensorSpec(key ?? AdapterKeys.prefix + path, shape, copies: copies)
        return Attachment(.parameter, path, [spec], keepsBase: keepsBase) { (_: Module, _) in nil }
    }

    /// The name of one of the tensors in the adapter's file.
    public func fileKey(_ key: String) -> String { AdapterKeys.full(key, site: site, path: path) }
}

/// Names in Hugging Face's adapter files.
enum AdapterKeys {
    static let prefix = "base_model.model."

    static func full(_ key: String, site: Attachment.Site, path: String) -> String {
        if key.hasPrefix("base_model.") { return key }
        switch site {
        case .linear, .embedding, .output: return "\(prefix)\(path).\(key)"
        case .input, .keyValues, .parameter: return key
        }
    }
}

/// What a method may use while it builds its adapters.
public final class AttachmentContext {
    public var random: SeededRandom
    public let model: any LanguageModel
    /// For prompts that begin as text; `nil` where none is at hand.
    public let tokenizer: Tokenizer?
    /// Whether values come from a file next, so that costly initialisations may be left out.
    public let isLoading: Bool
    private var shared: [String: Any] = [:]

    init(model: any LanguageModel, tokenizer: Tokenizer?, seed: UInt64, isLoading: Bool) {
        (self.model, self.tokenizer, self.isLoading) = (model, tokenizer, isLoading)
        random = SeededRandom(seed: seed, stream: 0xADA9)
    }

    /// Something that several sites share, made where it is first asked for.
    public func shared<Value>(_ name: String, _ make: () throws -> Value) rethrows -> Value {
        if let known = shared[name] as? Value { return known }
        let value = try make()
        shared[name] = value
        return value
    }

    public var device: Device { model.device }
    /// Adapters of half-precision bases are kept in fp32: their updates are smaller than a bf16 step.
    public var dtype: DType {
        model.firstParameter { $0.tensor.dtype.isFloatingPoint }?.tensor.dtype == .float64
            ? .float64 : .float32
    }
}

/// One tensor of an adapter.
public struct AdapterParameter {
    /// As in ``TensorSpec/key``.
    public let key: String
    public let parameter: Parameter
    public let isTrained: Bool
    public let isStored: Bool
    /// Multiplies the learning rate (LoRA+).
    public let rateFactor: Double

    public init(
        _ key: String, _ parameter: Parameter, isTrained: Bool = true, isStored: Bool = true, rateFactor: Double = 1
    ) {
        (self.key, self.parameter, self.rateFactor) = (key, parameter, rateFactor)
        (self.isTrained, self.isStored) = (isTrained, isStored)
    }
}

/// What a method attaches to one site.
public protocol AdapterModule: Module {
    /// All its tensors, those of the plan's ``TensorSpec``s; by default the module's own, under their names.
    var adapterParameters: [AdapterParameter] { get }
    /// What the file holds, by ``TensorSpec/key``; by default the parameters that are stored.
    func storedTensors() -> [String: Tensor]
    /// Takes over what a file holds, whose names and shapes were checked.
    func load(_ tensors: [String: Tensor]) throws
}

extension AdapterModule {
    public var adapterParameters: [AdapterParameter] { parameters().map { AdapterParameter($0.path, $0.parameter) } }

    public func storedTensors() -> [String: Tensor] {
        adapterParameters.reduce(into: [:]) { if $1.isStored { $0[$1.key] = $1.parameter.tensor } }
    }

    public func load(_ tensors: [String: Tensor]) throws {
        for parameter in adapterParameters {
            if let value = tensors[parameter.key] { parameter.parameter.tensor.copy(from: value) }
        }
    }
}
