import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Adapted slices of a fused projection, as in the LoRA paper's GPT-2, whose `c_attn` computes q, k and v and whose
/// keys aren't adapted. Each slice has its own LoRA branch: with A `[r·n, in]` of n enabled slices and B_j `[out_j,
/// r]`, the whole is one LoRA branch whose B `[out, r·n]` is zero outside n blocks. The model describes the slice
/// sizes; otherwise slices are equal.
public struct ProjectionSlices: Sendable, Equatable {
    /// Whether each slice of the output is adapted, in order.
    package var enabled: [Bool]
    /// Whether the configured rank is the total of all slices, as in files, rather than that of one.
    package var isTotal: Bool

    package init(_ enabled: [Bool]) { (self.enabled, isTotal) = (enabled, false) }

    /// Names of the slices: q, k and v, or gate and up.
    private static let names = [["q", "k", "v"], ["gate", "up"]]

    /// Parses `true,false,true` or `q,v` from the command line, or a JSON array of booleans from a file.
    init(_ json: JSON) throws {
        let list = json.array ?? []
        let flags = list.compactMap(\.bool)
        if !list.isEmpty, flags.count == list.count {
            (enabled, isTotal) = (flags, true)
            return
        }
        let words = list.compactMap { $0.string?.lowercased() }
        isTotal = false
        if words.allSatisfy({ $0 == "true" || $0 == "false" }), !words.isEmpty {
            enabled = words.map { $0 == "true" }
        } else if let names = Self.names.first(where: { Set($0).isSuperset(of: words) }), !words.isEmpty {
            enabled = names.map { words.contains($0) }
        } else {
            throw PEFTError(
                "\(json.text(indent: nil)) is not a list of slices",
                remedy: "name slices of q,k,v or gate,up, or list true or false for each")
        }
    }

    var json: JSON { .array(enabled.map { .bool($0) }) }
    /// Number of enabled slices.
    var count: Int { enabled.count { $0 } }

    func validate() throws {
        guard count > 0 else {
            throw PEFTError("no slice is enabled", remedy: "enable one, or remove --slices")
        }
    }

    /// - Parameter rank: the total rank of all slices.
    func attachment(
        at site: ModelOutline.LinearSite, in model: ModelOutline, rank: Int, scale: Double, dropout: Double
    ) throws -> Attachment {
        let sizes = try sizes(of: site)
        guard rank % count == 0 else {
            throw PEFTError(
                "the rank \(rank) at '\(site.path)' isn't divisible by \(count) slices",
                remedy: "use a multiple of \(count)")
        }
        let r = rank / count
        let rows = zip(sizes, enabled).reduce(0) { $0 + ($1.1 ? $1.0 : 0) }
        return .linear(
            site.path,
            [
                .init("lora_A.weight", [rank, site.inputs]),
                .init("lora_B.weight", [rows, r], fileShape: [site.outputs, rank]),
            ]
        ) { linear, context in
            SlicedLoRAAdapter(
                linear, slices: self, sizes: sizes, rank: r, scale: scale, dropout: dropout, context: context)
        }
    }

    /// Output sizes of the slices.
    private func sizes(of site: ModelOutline.LinearSite) throws -> [Int] {
        if let parts = site.parts {
            guard parts.count == enabled.count else {
                throw PEFTError(
                    "'\(site.path)' consists of \(parts.map(\.name).joined(separator: ", ")), but \(enabled.count) slices"
                        + " are given",
                    remedy: "list true or false for each of the \(parts.count)")
            }
            return parts.map(\.size)
        }
        guard site.outputs % enabled.count == 0 else {
            throw PEFTError(
                "the \(site.outputs) outputs of '\(site.path)' aren't divisible by \(enabled.count) slices",
                remedy: "target only fused projections, such as c_attn")
        }
        return Array(repeating: site.outputs / enabled.count, count: enabled.count)
    }

    /// Expands the stacked blocks b `[Σ out_j, r]` of the enabled slices to B `[out, r·n]`.
    func spread(_ b: Tensor, sizes: [Int]) -> Tensor {
        let r = b.dim(1)
        func zeros(_ rows: Int, _ columns: Int) -> Tensor {
            .zeros([rows, columns], dtype: b.dtype, device: b.device)
        }
        var (next, row) = (0, 0)
        let parts = zip(sizes, enabled).map { size, isEnabled -> Tensor in
            guard isEnabled else { return zeros(size, r * count) }
            defer { (next, row) = (next + 1, row + size) }
            let block = b.narrowed(axis: 0, row..<(row + size))
            return Tensor.concatenated([zeros(size, r * next), block, zeros(size, r * (count - 1 - next))], axis: 1)
        }
        return Tensor.concatenated(parts)
    }

    /// Extracts the stacked blocks `[Σ out_j, r]` of B `[out, r·n]`.
    func gathered(_ b: Tensor, sizes: [Int]) -> Tensor {
        let r = b.dim(1) / count
        var (next, row) = (0, 0)
        var parts: [Tensor] = []
        for (size, isEnabled) in zip(sizes, enabled) {
            if isEnabled {
                let block = b.narrowed(axis: 0, row..<(row + size))
                parts.append(block.narrowed(axis: 1, (next * r)..<((next + 1) * r)))
                next += 1
            }
            row += size
        }
        return Tensor.concatenated(parts)
    }
}

/// The LoRA branch of some slices of a projection.
final class SlicedLoRAAdapter: Module, LinearAdapter, AdapterModule {
    /// `[r·n, in]`, stacked over the enabled slices.
    @ParameterInfo var a: Tensor
    /// `[Σ out_j, r]`, initially 0.
    @ParameterInfo var b: Tensor
    private let slices: ProjectionSlices
    /// Output sizes of all slices, adapted or not.
    private let sizes: [Int]
    private let scale: Double
    private let dropoutRate: Double

    init(
        _ linear: Linear, slices: ProjectionSlices, sizes: [Int], rank: Int, scale: Double, dropout: Double,
        context: AttachmentContext
    ) {
        (self.slices, self.sizes, self.scale, dropoutRate) = (slices, sizes, scale, dropout)
        let (dtype, device) = (context.dtype, context.device)
        let a = Tensor.empty([rank * slices.count, linear.inputs], dtype: dtype, device: device)
        let bound = 1 / Double(linear.inputs).squareRoot()
        if device != .meta { a.fillUniform(-bound, bound, from: &context.random) }
        _a = ParameterInfo(wrappedValue: a, key: "lora_A.weight")
        let rows = zip(sizes, slices.enabled).reduce(0) { $0 + ($1.1 ? $1.0 : 0) }
        _b = ParameterInfo(wrappedValue: .zeros([rows, rank], dtype: dtype, device: device), key: "lora_B.weight")
    }

    func storedTensors() -> [String: Tensor] {
        ["lora_A.weight": a.detached(), "lora_B.weight": slices.spread(b.detached(), sizes: sizes)]
    }

    func load(_ tensors: [String: Tensor]) throws {
        if let value = tensors["lora_A.weight"] { a.copy(from: value) }
        guard let value = tensors["lora_B.weight"] else { return }
        let blocks = slices.gathered(value, sizes: sizes)
        guard slices.spread(blocks, sizes: sizes).isIdentical(to: value) else {
            throw PEFTError(
                "the adapter's lora_B has values outside its slices",
                remedy: "remove 'lora_slices' from its configuration")
        }
        b.copy(from: blocks)
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        return Functions.loraBranch(
            base(x), x: x, a: a, b: slices.spread(b, sizes: sizes), scale: scale, dropout: probability, seed: seed)
    }

    func merged(into weight: Tensor) throws -> Tensor {
        let update = slices.spread(b.detached().to(.float64), sizes: sizes).matmul(a.detached().to(.float64)) * scale
        return (weight.to(.float64) + update).to(weight.dtype)
    }
}
