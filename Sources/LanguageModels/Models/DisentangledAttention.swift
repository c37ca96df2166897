import Foundation
import PEFTSupport
import Torch
import TorchNN

/// What disentangled attention reads from `config.json`.
struct DisentangledSettings: Sendable {
    /// Vectors of relative positions.
    struct Positions: Sendable {
        /// Number of vectors for each direction.
        let span: Int
        /// Number of logarithmic buckets for each direction; `nil` without buckets.
        let buckets: Int?
        let maximum: Int
        /// Whether the vectors have a norm.
        let areNormalized: Bool
        /// Whether they are projected by the queries' and keys' projections.
        let shareProjections: Bool
    }

    /// A convolution over tokens beside the first layer.
    struct Convolution: Sendable {
        let width: Int
        /// tanh if `nil`.
        let activation: Activation?
    }

    let positions: Positions?
    let hasPositionTable: Bool
    /// Whether queries attend to the positions of keys, and keys to those of queries.
    let contentToPosition: Bool
    let positionToContent: Bool
    let convolution: Convolution?

    init(_ read: ConfigurationReader, positions count: Int) throws {
        let kinds = try Self.kinds(read)
        (contentToPosition, positionToContent) = (kinds.contains("c2p"), kinds.contains("p2c"))
        hasPositionTable = try read.boolean("position_biased_input", default: true)
        let normed = try read.string("norm_rel_ebd", default: "none").lowercased()
        let isRelative = try read.boolean("relative_attention", default: false)
        let range = try read.integer("max_relative_positions", default: -1, in: -1...1_000_000)
        let maximum = range < 1 ? count : range
        let buckets = try read.integer("position_buckets", default: -1, in: -1...1_000_000)
        if isRelative {
            guard buckets < 1 || buckets >= 4 && maximum > buckets else {
                throw PEFTError(
                    "config.json: 'position_buckets' is \(buckets)",
                    remedy: "use 4 or more, and fewer than 'max_relative_positions' (\(maximum))")
            }
            positions = Positions(
                span: buckets > 0 ? buckets : maximum, buckets: buckets > 0 ? buckets : nil, maximum: maximum,
                areNormalized: normed.split(separator: "|").contains {
                    $0.trimmingCharacters(in: .whitespaces) == "layer_norm"
                },
                shareProjections: try read.boolean("share_att_key", default: false))
        } else {
            positions = nil
        }
        convolution = try Self.convolution(read)
        try read.refuse("attention_head_size", unless: [])
    }

    private static func kinds(_ read: ConfigurationReader) throws -> Set<String> {
        guard let value = read.json["pos_att_type"], value != .null else { return [] }
        let names =
            value.string.map { $0.lowercased().split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) } }
            ?? (value.array ?? []).compactMap(\.string)
        let known = Set(["c2p", "p2c"])
        guard names.count == value.array?.count ?? names.count, known.isSuperset(of: names.filter { !$0.isEmpty }),
            value.string != nil || value.array != nil
        else {
            throw PEFTError(
                "config.json: 'pos_att_type' is \(value.text(indent: nil)), which is not supported",
                remedy: "use c2p, p2c or both")
        }
        return known.intersection(names)
    }

    private static func convolution(_ read: ConfigurationReader) throws -> Convolution? {
        let width = try read.integer("conv_kernel_size", default: 0, in: 0...1024)
        guard width > 0 else { return nil }
        guard !width.isMultiple(of: 2) else {
            throw PEFTError("config.json: 'conv_kernel_size' is \(width)", remedy: "use an odd number")
        }
        try read.refuse("conv_groups", unless: [1])
        let name = try read.string("conv_act", default: "tanh")
        return Convolution(width: width, activation: name == "tanh" ? nil : try read.activation("conv_act"))
    }

    /// The factor of the head size in the scores' scale: one for each kind of attention.
    var terms: Int { 1 + (contentToPosition ? 1 : 0) + (positionToContent ? 1 : 0) }
}

extension DisentangledSettings.Positions {
    /// The vector for a distance query − key.
    func index(_ distance: Int) -> Int { min(max(bucket(distance) + span, 0), 2 * span - 1) }

    private func bucket(_ distance: Int) -> Int {
        guard let buckets else { return distance }
        let middle = buckets / 2
        guard abs(distance) > middle else { return distance }
        // In fp32 and in this order, as in PyTorch: bucket boundaries depend on the rounding.
        let ratio = Foundation.log(Float(abs(distance)) / Float(middle))
        let whole = Foundation.log(Float(Double(maximum - 1) / Double(middle)))
        let place = (ratio / whole * Float(middle - 1)).rounded(.up) + Float(middle)
        return distance < 0 ? -Int(place) : Int(place)
    }
}

/// Disentangled attention (He et al. 2021, DeBERTa, eqs. 2–4): scores are sums of content-to-content,
/// content-to-position and position-to-content terms,
/// A_ij = (q_i · k_j + q_i · kʳ_δ(i,j) + k_j · qʳ_δ(i,j)) / √(3 d).
final class DisentangledAttention: Module, BERTBlockAttention {
    @ModuleInfo(key: "attention.self.query_proj") var q: Linear
    @ModuleInfo(key: "attention.self.key_proj") var k: Linear
    @ModuleInfo(key: "attention.self.value_proj") var v: Linear
    @ModuleInfo(key: "attention.self.pos_key_proj") var positionKeys: Linear?
    @ModuleInfo(key: "attention.self.pos_query_proj") var positionQueries: Linear?
    @ModuleInfo(key: "attention.output.dense") var o: Linear
    @ModuleInfo(key: "attention.prefix_site") var prefix: KeyValueSite
    private let settings: DisentangledSettings
    private let heads: Int
    private let headSize: Int
    private let rate: Double
    private let positionRate: Double

    init(_ settings: DisentangledSettings, _ all: BERTConfiguration) {
        self.settings = settings
        (heads, headSize) = (all.heads, all.headSize)
        (rate, positionRate) = (all.attentionDropout, all.dropout)
        let size = all.size
        let isSeparate = settings.positions.map { !$0.shareProjections } ?? false
        _q.wrappedValue = Linear(size, size)
        _k.wrappedValue = Linear(size, size)
        _v.wrappedValue = Linear(size, size)
        _positionKeys.wrappedValue = isSeparate && settings.contentToPosition ? Linear(size, size) : nil
        _positionQueries.wrappedValue = isSeparate && settings.positionToContent ? Linear(size, size) : nil
        _o.wrappedValue = Linear(size, size)
        _prefix.wrappedValue = KeyValueSite(.attention, role: .encoder, heads: heads, headSize: headSize)
    }

    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        guard let context = context as? PackedContext else { return x }
        func split(_ x: Tensor) -> Tensor { x.reshaped(-1, heads, headSize) }
        let own = Linear.project(x, [q, k, v]).map(split)
        let all = prefix(own[1], own[2], offsets: context.offsets)
        let vectors = context.relativePositions.map { dropout($0, positionRate) }
        let routes = RowRouting.current?.routes
        var shared: (keys: Tensor?, queries: Tensor?)?
        let rows = (0..<(context.offsets.count - 1)).map { row -> Tensor in
            func part(_ x: Tensor, _ offsets: [Int]) -> Tensor {
                x.narrowed(axis: 0, offsets[row]..<offsets[row + 1]).transposed(0, 1)
            }
            // Sequences with the same adapters have the same positions.
            let positions = shared ?? projected(vectors, route: routes.map { $0[row] })
            if routes == nil { shared = positions }
            return attend(
                part(own[0], context.offsets), part(all.keys, all.offsets), part(all.values, all.offsets), positions
            ).transposed(0, 1)
        }
        let mixed = Tensor.concatenated(rows)
        return o(mixed.reshaped(-1, heads * headSize))
    }

    /// Keys and queries of the relative positions, `[heads, 2 · span, headSize]`.
    /// - Parameter route: the adapters in a mixed-adapter batch.
    private func projected(_ vectors: Tensor?, route: Int?) -> (keys: Tensor?, queries: Tensor?) {
        guard let vectors, let positions = settings.positions else { return (nil, nil) }
        func heads(_ projection: Linear?) -> Tensor? {
            projection.map { $0(vectors).reshaped(-1, self.heads, headSize).transposed(0, 1) }
        }
        func both() -> (keys: Tensor?, queries: Tensor?) {
            guard positions.shareProjections else { return (heads(positionKeys), heads(positionQueries)) }
            return (settings.contentToPosition ? heads(k) : nil, settings.positionToContent ? heads(q) : nil)
        }
        guard let route else { return both() }
        return RowRouting(routes: [route]).run { RowRouting.within([0, vectors.dim(0)], both) }
    }

    /// Queries `[heads, queries, headSize]`, and keys that may begin with a prefix -> `[heads, queries, headSize]`.
    private func attend(
        _ queries: Tensor, _ keys: Tensor, _ values: Tensor, _ positions: (keys: Tensor?, queries: Tensor?)
    ) -> Tensor {
        let (count, seen) = (queries.dim(1), keys.dim(1))
        let scale = 1 / Double(headSize * settings.terms).squareRoot()
        var scores = queries.matmul(keys.T)
        if let relative = settings.positions {
            let start = seen - count
            func indices(_ rows: Int, _ columns: Int, _ distance: (Int, Int) -> Int) -> Tensor {
                let all = (0..<rows).flatMap { row in (0..<columns).map { relative.index(distance(row, $0)) } }
                return Tensor(all, shape: [1, rows, columns], device: queries.device)
                    .expanded([heads, rows, columns])
            }
            if let vectors = positions.keys {
                let places = indices(count, seen) { start + $0 - $1 }
                scores = scores + queries.matmul(vectors.T).gathering(axis: 2, places)
            }
            if let vectors = positions.queries {
                let places = indices(seen, count) { start + $1 - $0 }
                scores = scores + keys.matmul(vectors.T).gathering(axis: 2, places).T
            }
        }
        return dropout((scores * scale).softmax(), rate).matmul(values)
    }
}

/// A convolution over the tokens of each sequence, added to the first layer's output (DeBERTa v2).
final class TokenConvolution: Module {
    /// `[size, size, width]`
    @ParameterInfo var weight: Tensor
    @ParameterInfo var bias: Tensor
    @ModuleInfo(key: "LayerNorm") var norm: LayerNorm
    private let settings: DisentangledSettings.Convolution
    private let rate: Double

    init(_ settings: DisentangledSettings.Convolution, _ all: BERTConfiguration) {
        (self.settings, rate) = (settings, all.dropout)
        _weight = ParameterInfo(
            wrappedValue: .empty([all.size, all.size, settings.width], device: .meta), key: "conv.weight")
        _bias = ParameterInfo(wrappedValue: .empty([all.size], device: .meta), key: "conv.bias")
        _norm.wrappedValue = LayerNorm(all.size, epsilon: all.epsilon)
    }

    /// - Parameters:
    ///   - x: the first layer's input, `[tokens, size]`.
    ///   - residual: its output.
    ///   - offsets: where each sequence starts.
    func callAsFunction(_ x: Tensor, residual: Tensor, offsets: [Int]) -> Tensor {
        let (tokens, size) = (x.dim(0), x.dim(1))
        // Beyond a sequence there are zeros.
        let padded = Tensor.concatenated([x, .zeros([1, size], dtype: x.dtype, device: x.device)])
        var sum: Tensor?
        for place in 0..<settings.width {
            let shift = place - settings.width / 2
            let indices = zip(offsets, offsets.dropFirst()).flatMap { start, end in
                (start..<end).map { (start..<end).contains($0 + shift) ? $0 + shift : tokens }
            }
            let matrix = weight.narrowed(axis: 2, place..<(place + 1)).reshaped(size, size)
            let part = Functions.linear(padded.selecting(Tensor(indices, device: x.device)), matrix)
            sum = sum.map { $0 + part } ?? part
        }
        guard let sum else { return residual }
        let output = dropout(sum + bias.to(sum.dtype), rate)
        return norm(residual + (settings.activation?(output) ?? output.tanh()))
    }
}
