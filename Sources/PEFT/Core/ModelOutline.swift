import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// The part of a model that a parameter belongs to.
public enum Component: String, Sendable, CaseIterable {
    case attention
    case feedForward = "feed-forward"
    case norm = "norms"
    case embedding = "embeddings"
    case head
    case other
}

/// Paths and shapes of a model, as methods see it when planning.
public struct ModelOutline {
    /// A projection: its path, `[outputs, inputs]` and bias.
    public struct LinearSite: Sendable {
        /// Its path in the module tree.
        public let path: String
        /// Size of the inputs.
        public let inputs: Int
        /// Size of the outputs.
        public let outputs: Int
        /// Whether it has a bias.
        public let hasBias: Bool
        /// Inputs per quantization group, if the weight is quantized in groups.
        package var groupSize: Int?
        /// Parts of the output of a fused projection, in order.
        package var parts: [FusedPart]?
    }
    /// A projection of all experts of a layer.
    package struct ExpertSite: Sendable {
        package let path: String
        package let experts: Int
        package let inputs: Int
        package let outputs: Int
        /// Path of the layer's experts.
        package var layerPath: String { path.split(separator: ".").dropLast().joined(separator: ".") }
    }
    /// An embedding: its path and `[entries, size]`.
    public struct EmbeddingSite: Sendable {
        /// Its path in the module tree.
        public let path: String
        /// Number of vectors.
        public let entries: Int
        /// Size of a vector.
        public let size: Int
        /// Path of the embedding that is looked up: another one if the module has none of its own (T5's stacks).
        package let table: String
    }
    /// The output of a sublayer, with its hidden size.
    public struct SublayerSite: Sendable {
        /// Its path in the module tree.
        public let path: String
        /// The kind of sublayer.
        public let kind: SublayerKind
        /// Size of the hidden states.
        public let size: Int
        /// Whether adapters there can read the residual stream.
        package let knowsStream: Bool
    }
    /// The input of a stack of layers, with its hidden size.
    public struct InputSiteOutline: Sendable {
        /// Its path in the module tree.
        public let path: String
        /// The stack of layers.
        public let role: StackRole
        /// Size of the hidden states.
        public let size: Int
    }
    /// The keys and values of an attention, with the number and size of its key-value heads.
    public struct KeyValueSiteOutline: Sendable {
        /// Its path in the module tree.
        public let path: String
        /// The kind of sublayer.
        public let kind: SublayerKind
        /// The stack of layers.
        public let role: StackRole
        /// Number of key-value heads.
        public let heads: Int
        /// Size of one head.
        public let headSize: Int
    }
    /// A parameter with its component.
    public struct ParameterSite: Sendable {
        /// Its path in the module tree.
        public let path: String
        /// Its shape.
        public let shape: [Int]
        /// The part of the model to which it belongs.
        public let component: Component
        /// Number of weights that it represents, if it is part of a quantized weight.
        var meaning: Int?
        package var count: Int { meaning ?? shape.reduce(1, *) }
        /// Last path component: `weight`, `bias`, ….
        package var leaf: String { path.split(separator: ".").last.map(String.init) ?? path }
        /// Path of the module that contains it.
        package var owner: String { path.split(separator: ".").dropLast().joined(separator: ".") }
        /// Whether it is a router's correction, which transformers keeps as a buffer and doesn't train.
        package var isBuffer: Bool { leaf == "e_score_correction_bias" }
        /// The first number in the path: the layer within its stack.
        public var layer: Int? { ModelOutline.layer(of: path) }
    }

    /// A tensor stored in a dtype or quantization format that can't be trained in place.
    package struct FrozenTensor: Sendable {
        package let path: String
        package let storage: String
        /// Whether a copy of it may be trained: true for weights in 16 bits, but for experts.
        package let takesCopies: Bool
    }

    package let modelFamily: ModelFamily
    package let architecture: Architecture
    /// The model's head and task.
    public let head: ModelHead
    /// `config.json`.
    package let configuration: JSON
    /// The projections, in the model's order.
    public internal(set) var linears: [LinearSite]
    /// The projections of routers, which choose experts and aren't modules of their own in Hugging Face's models.
    package let routers: [LinearSite]
    /// The projections of experts, in the model's order.
    package let experts: [ExpertSite]
    /// The tables of vectors.
    public let embeddings: [EmbeddingSite]
    /// The outputs of sublayers.
    public internal(set) var outputs: [SublayerSite]
    /// The inputs of stacks of layers.
    public let inputs: [InputSiteOutline]
    /// The keys and values of attentions.
    public internal(set) var keyValues: [KeyValueSiteOutline]
    /// The model's own tensors.
    public internal(set) var parameters: [ParameterSite]
    /// Tensors that can't be trained in place because they are quantized or stored in 16 bits.
    package internal(set) var frozen: [FrozenTensor]
    /// Bytes of all tensors, with unquantized tensors counted as fp32.
    package let weightBytes: Int
    /// Path of the output layer.
    public let outputLayer: String
    /// Path of the input embedding.
    public let inputEmbedding: String
    /// Factor that the input embeddings are multiplied by.
    package let embeddingScale: Double
    /// Modules without pretrained weights that every method trains too, such as a classification head.
    package let newModules: [String]
    /// Paths of all modules with their Swift types' names, for errors.
    package internal(set) var modules: [String]
    /// Path of the list of layers, if it can be stacked anew (``LayerReplication``).
    let layersPath: String?
    /// The own layer of each layer, if they are stacked anew.
    var layerOrder: [Int]?

    /// Reads paths and shapes; the model may be on the meta device.
    public init(_ model: any LanguageModel) {
        modelFamily = model.modelFamily
        (architecture, head) = (model.architecture, model.head)
        configuration = model.configuration
        outputLayer = model.outputLayer
        inputEmbedding = model.inputEmbedding
        embeddingScale = model.embeddingScale
        newModules = model.newModules
        let stack = model as? any LayerStacking
        (layersPath, layerOrder) = (stack?.layersPath, stack?.layerOrder)
        let named = model.namedModules()
        modules = named.map(\.path)
        let all = named.compactMap { path, module in
            (module as? Linear).map {
                LinearSite(
                    path: path, inputs: $0.inputs, outputs: $0.outputs, hasBias: $0.bias != nil,
                    groupSize: $0.weight.grouped?.groupSize,
                    parts: model.fusedParts(of: path))
            }
        }
        linears = all.filter { !model.modelFamily.modules.isRouter($0.path) }
        routers = all.filter { model.modelFamily.modules.isRouter($0.path) }
        experts = named.compactMap { path, module in
            (module as? ExpertLinear).map {
                ExpertSite(path: path, experts: $0.experts, inputs: $0.inputs, outputs: $0.outputs)
            }
        }
        let tables = Dictionary(named.map { (ObjectIdentifier($0.module), $0.path) }, uniquingKeysWith: { a, _ in a })
        // The first tensor of a quantized weight represents its weights.
        let meanings = Dictionary(
            named.flatMap { path, module -> [(String, Int)] in
                if let site = module as? ExpertLinear, site.weight.precision == .quantized {
                    return site.weight.paths(at: path).enumerated().map {
                        ($0.element, $0.offset == 0 ? site.experts * site.outputs * site.inputs : 0)
                    }
                }
                guard let weight = Self.weight(of: module), weight.isQuantized else { return [] }
                return weight.parameters.enumerated().map {
                    ("\(path).\($0.element.key)", $0.offset == 0 ? weight.outputs * weight.inputs : 0)
                }
            }, uniquingKeysWith: { first, _ in first })
        frozen = named.flatMap { path, module -> [FrozenTensor] in
            if let site = module as? ExpertLinear, site.weight.precision != .full {
                return site.weight.paths(at: path).map {
                    FrozenTensor(path: $0, storage: site.weight.formatName, takesCopies: false)
                }
            }
            guard let weight = Self.weight(of: module), weight.precision != .full else { return [] }
            return weight.parameters.map {
                FrozenTensor(
                    path: "\(path).\($0.key)", storage: weight.formatName, takesCopies: weight.precision == .half)
            }
        }
        let kept = Set(frozen.map(\.path))
        weightBytes = model.parameters().reduce(0) { sum, item in
            let tensor = item.parameter.tensor
            return sum + (kept.contains(item.path) ? tensor.byteCount : tensor.count * 4)
        }
        embeddings = named.compactMap { path, module in
            (module as? Embedding).map {
                let table = $0.table.flatMap { tables[ObjectIdentifier($0)] } ?? path
                return EmbeddingSite(path: path, entries: $0.entries, size: $0.size, table: table)
            }
        }
        outputs = named.compactMap { path, module in
            (module as? OutputSite).map {
                SublayerSite(path: path, kind: $0.kind, size: $0.size, knowsStream: $0.knowsStream)
            }
        }
        inputs = named.compactMap { path, module in
            (module as? InputSite).flatMap { $0.takesPrompts ? $0 : nil }.map {
                InputSiteOutline(path: path, role: $0.role, size: $0.size)
            }
        }
        keyValues = named.compactMap { path, module in
            (module as? KeyValueSite).flatMap { site in site.takesPrefixes ? site : nil }.map {
                KeyValueSiteOutline(path: path, kind: $0.kind, role: $0.role, heads: $0.heads, headSize: $0.headSize)
            }
        }
        let types = Dictionary(named.map { ($0.path, $0.module) }, uniquingKeysWith: { first, _ in first })
        let head = [model.outputLayer].filter { !$0.isEmpty } + model.newModules
        let buffers = model.buffers
        parameters = model.parameters().filter { !buffers.contains($0.path) }.map { path, parameter in
            let owner = path.split(separator: ".").dropLast().joined(separator: ".")
            return ParameterSite(
                path: path, shape: parameter.tensor.shape,
                component: Self.component(path, types[path] ?? types[owner], model.modelFamily.modules, head: head),
                meaning: meanings[path])
        }
    }

    /// Names of the formats that the weights are stored in: those of ``frozen`` tensors, then that of all others.
    package var weightFormats: [String] {
        var names: [String] = []
        for tensor in frozen where !names.contains(tensor.storage) { names.append(tensor.storage) }
        return names + ["fp32"]
    }

    /// `model_type` in `config.json`.
    public var family: String { modelFamily.name }

    /// Whether the output layer is tied to the input embeddings.
    public var isTied: Bool {
        !outputLayer.isEmpty && !parameters.contains { $0.path.hasPrefix(outputLayer + ".") }
    }

    /// Modules that look up tokens in another module's embedding.
    package func views(of table: EmbeddingSite) -> [EmbeddingSite] {
        embeddings.filter { $0.table == table.path && $0.path != table.path }
    }

    /// Total number of parameters.
    public var parameterCount: Int { parameters.reduce(0) { $0 + $1.count } }

    private static func component(_ path: String, _ owner: Module?, _ names: ModuleNames, head: [String])
        -> Component
    {
        if head.contains(where: { path == $0 || path.hasPrefix($0 + ".") }) { return .head }
        if owner is RMSNorm || owner is LayerNorm { return .norm }
        let parts = Set(path.split(separator: ".").map(String.init))
        // A relative attention bias is an embedding, but belongs to the attention.
        if !names.attention.isDisjoint(with: parts) { return .attention }
        if owner is Embedding { return .embedding }
        return (owner is Linear || owner is ExpertLinear) && !names.feedForward.isDisjoint(with: parts)
            ? .feedForward : .other
    }

    private static func weight(of module: Module) -> (any LinearWeight)? {
        if let linear = module as? Linear { return linear.weight }
        guard let table = module as? Embedding, table.table == nil else { return nil }
        return table.weight
    }

    static func layer(of path: String) -> Int? {
        path.split(separator: ".").lazy.compactMap { Int($0) }.first
    }
}
