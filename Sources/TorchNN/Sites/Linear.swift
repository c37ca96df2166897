import Torch

/// A projection y = x Wᵀ + b with an ordered list of adapters.
public final class Linear: Module, AdapterSite {
    package var weight: any LinearWeight
    package let bias: Parameter?
    private var slot = AdapterSlot<any LinearAdapter>()
    /// The only adapters of routes, if they may have a ``RowBranch``.
    private var routedBranches: [Int: RoutedBranch] = [:]

    /// The first wraps the bare projection, each further one the result so far: forward order is merge order.
    package var adapters: [any LinearAdapter] { slot.active }
    /// Whether any adapter is attached, in any route.
    package var isAdapted: Bool { !slot.isEmpty }
    /// Size of the inputs.
    public var inputs: Int { weight.inputs }
    /// Size of the outputs.
    public var outputs: Int { weight.outputs }

    /// A projection `[outputs, inputs]` whose values are set later, for example by loading a file.
    public init(_ inputs: Int, _ outputs: Int, bias: Bool = true, device: Device = .meta) {
        weight = DenseWeight(.empty([outputs, inputs], device: device))
        self.bias = bias ? Parameter(.empty([outputs], device: device)) : nil
    }

    /// A projection over a weight in another format.
    package init(_ weight: any LinearWeight, bias: Parameter?) {
        self.weight = weight
        self.bias = bias
    }

    public override func ownParameters() -> [(key: String, parameter: Parameter)] {
        weight.parameters + (bias.map { [("bias", $0)] } ?? [])
    }

    /// `[..., inputs]` -> `[..., outputs]`.
    public func callAsFunction(_ x: Tensor) -> Tensor {
        if let spans = RowRouting.currentSpans, !slot.routed.isEmpty {
            let branches = rowBranches(spans, x)
            let scaled = scaled(x, spans, branches)
            return routed(x, spans, branches, whole: weight.project(scaled, bias: bias?.tensor))
        }
        // A LoRA branch is fused with its projection.
        if !slot.active.isEmpty, let own = projection(isRouted: false) {
            return Functions.projections(x, [own])[0]
        }
        return BaseProjection(self, adapters: slot.active[...])(x)
    }

    /// Applies several projections to the same x `[..., inputs]` in one fused call.
    package static func project(_ x: Tensor, _ list: [Linear]) -> [Tensor] {
        let spans = RowRouting.currentSpans
        func isRouted(_ linear: Linear) -> Bool { spans != nil && !linear.slot.routed.isEmpty }
        guard list.allSatisfy({ $0.isProjection(isRouted: isRouted($0)) }) else { return list.map { $0(x) } }
        let branches = list.map { linear in
            spans.map { isRouted(linear) ? linear.rowBranches($0, x) : [] } ?? []
        }
        // Inputs of their own are projected on their own.
        guard !branches.contains(where: { $0.contains { $0?.inputGain != nil } }) else { return list.map { $0(x) } }
        let parts = list.compactMap { $0.projection(isRouted: isRouted($0)) }
        let outputs = Functions.projections(x, parts)
        return list.indices.map { index in
            guard let spans, isRouted(list[index]) else { return outputs[index] }
            return list[index].routed(x, spans, branches[index], whole: outputs[index])
        }
    }

    /// The projection for a fused call: the bare one if it has no adapters or `isRouted` (the routes' adapters follow
    /// later), else with its only LoRA branch; `nil` for other adapters. With dropout, draws a fresh mask seed.
    private func projection(isRouted: Bool) -> Projection? {
        guard let matrix = weight.projectionMatrix else { return nil }
        if isRouted || slot.active.isEmpty { return Projection(matrix, bias: bias?.tensor) }
        guard slot.active.count == 1, let update = slot.active[0].asWeightAdapter?.lowRankFactors else { return nil }
        let (probability, seed) = DropoutScope.draw(update.dropout)
        return Projection(
            matrix, bias: bias?.tensor,
            update: .init(a: update.a, b: update.b, scale: update.scale, dropout: probability, seed: seed))
    }

    /// Whether ``projection(isRouted:)`` exists.
    private func isProjection(isRouted: Bool) -> Bool {
        weight.projectionMatrix != nil
            && (isRouted || slot.active.isEmpty
                || slot.active.count == 1 && slot.active[0].asWeightAdapter?.lowRankFactors != nil)
    }

    /// The branch of each span whose only adapter has one, if it can be applied in place; else no elements.
    private func rowBranches(_ spans: [RowRouting.Span], _ x: Tensor) -> [RowBranch?] {
        guard !areGradientsEnabled, !routedBranches.isEmpty, x.shape.count == 2 else { return [] }
        let (isDropping, isFrozen) = (DropoutScope.isLive, RowRouting.current?.isFrozen ?? false)
        return spans.map { span in
            guard let branch = routedBranches[span.route]?.branch(isFrozen: isFrozen) else { return nil }
            return isDropping && branch.dropout > 0 ? nil : branch
        }
    }

    /// x with each span's input gain.
    private func scaled(_ x: Tensor, _ spans: [RowRouting.Span], _ branches: [RowBranch?]) -> Tensor {
        guard branches.contains(where: { $0?.inputGain != nil }) else { return x }
        return Functions.scaledRows(
            x, offsets: spans.map(\.tokens.lowerBound) + [x.dim(0)], gains: branches.map { $0?.inputGain })
    }

    /// Applies each span's adapters to its part of `whole`, the base output of all sequences for inputs with the branches'
    /// gains.
    private func routed(_ x: Tensor, _ spans: [RowRouting.Span], _ branches: [RowBranch?], whole: Tensor) -> Tensor {
        let list = zip(spans, branches).compactMap { span, branch in
            branch.flatMap { $0.changesOutput ? $0.applied(to: span.tokens) : nil }
        }
        if !list.isEmpty { Functions.rowBranches(whole, x: x, bias: bias?.tensor, list) }
        func output(_ span: RowRouting.Span, _ known: Tensor) -> Tensor? {
            guard let adapters = slot.routed[span.route], !adapters.isEmpty else { return nil }
            let part = x.narrowed(axis: 0, span.tokens)
            return InvocationScope.within(span: span.tokens) {
                BaseProjection(self, adapters: adapters[...], known: (part, known))(part)
            }
        }
        let isInPlace = !areGradientsEnabled && x.shape.count == 2
        if isInPlace, spans.count > 1 {
            for (index, span) in spans.enumerated() where !branches.indices.contains(index) || branches[index] == nil
            {
                guard let adapters = slot.routed[span.route], !adapters.isEmpty else { continue }
                let known = whole.narrowed(axis: 0, span.tokens)
                if let own = output(span, known) { known.copy(from: own) }
            }
            return whole
        }
        guard branches.first.flatMap({ $0 }) == nil else { return whole }
        let parts = spans.map { span -> Tensor in
            let known = whole.narrowed(axis: 0, span.tokens)
            return output(span, known) ?? known
        }
        return parts.count == 1 ? parts[0] : Tensor.concatenated(parts)
    }

    package func attach(_ adapter: Module, route: Int?) -> Bool {
        let isAttached = slot.attach(adapter, route: route)
        if let route {
            let single = slot.routed[route]?.count == 1 ? adapter as? any WeightAdapter : nil
            routedBranches[route] = single.map { RoutedBranch($0) }
        }
        return isAttached
    }
    package func attachBeneath(_ adapter: Module) { slot.attachBeneath(adapter) }
    package func detach(_ adapter: Module) { slot.detach(adapter) }
    package func clear(route: Int) {
        slot.clear(route: route)
        routedBranches[route] = nil
    }
    package var attached: [Module] { slot.modules }
}

/// A projection together with the adapters below a given one.
public struct BaseProjection {
    private let linear: Linear
    private let adapters: ArraySlice<any LinearAdapter>
    /// The bare projection's output for one input, if it is known already.
    private let known: (input: Tensor, output: Tensor)?

    init(_ linear: Linear, adapters: ArraySlice<any LinearAdapter>, known: (input: Tensor, output: Tensor)? = nil) {
        (self.linear, self.adapters, self.known) = (linear, adapters, known)
    }

    /// The weight below, which an initialization may have replaced (PiSSA), without the adapters below.
    package var weight: any LinearWeight {
        adapters.lazy.compactMap { $0.asWeightAdapter?.replacementWeight }.first ?? linear.weight
    }
    /// The bias `[outputs]` of the projection; `nil` if it has none.
    public var bias: Tensor? { linear.bias?.tensor }
    /// Whether there are no adapters below.
    public var isBare: Bool { adapters.isEmpty }

    /// The output of the projection with the adapters below, `[..., inputs]` -> `[..., outputs]`.
    public func callAsFunction(_ x: Tensor) -> Tensor {
        guard let top = adapters.last else {
            if let known, known.input === x { return known.output }
            return linear.weight.project(x, bias: bias)
        }
        let beneath = BaseProjection(linear, adapters: adapters.dropLast(), known: known)
        return top(x, base: beneath)
    }

    /// The output of another weight of the same shape, with this projection's bias.
    package func project(_ x: Tensor, with weight: any LinearWeight) -> Tensor { weight.project(x, bias: bias) }
}

/// An adapter that changes a projection's output.
public protocol LinearAdapter: Module {
    /// The new output for x `[..., inputs]` -> `[..., outputs]`; `base` computes what is below.
    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor
    /// The weight `[outputs, inputs]` that equals `weight` with this adapter.
    func merged(into weight: Tensor) throws -> Tensor
    /// The merged bias `[outputs]`.
    func merged(intoBias bias: Tensor) throws -> Tensor
}

extension LinearAdapter {
    /// The bias itself: most adapters change the weight alone.
    public func merged(intoBias bias: Tensor) throws -> Tensor { bias }

    /// The adapter, if it knows weights as they are stored.
    package var asWeightAdapter: (any WeightAdapter)? { self as? any WeightAdapter }
}

/// An adapter that knows weights as they are stored, or whose branch is fused with its projection.
package protocol WeightAdapter: LinearAdapter {
    /// The merged weight in a format that can absorb the delta as it is stored; `nil` if the weight must be
    /// dequantized and stored again.
    func merged(into weight: any LinearWeight) throws -> (any LinearWeight)?
    /// The weight that this adapter uses instead of the model's own, if its initialization changes it.
    var replacementWeight: (any LinearWeight)? { get }
    /// The LoRA factors, if the adapter is a plain LoRA branch of the bare projection.
    var lowRankFactors: LowRankFactors? { get }
    /// What the adapter does to rows of a mixed-adapter batch over the bare projection, if that is all it does.
    var rowBranch: RowBranch? { get }
}

extension WeightAdapter {
    package func merged(into weight: any LinearWeight) throws -> (any LinearWeight)? { nil }
    package var replacementWeight: (any LinearWeight)? { nil }
    package var lowRankFactors: LowRankFactors? { nil }
    package var rowBranch: RowBranch? { lowRankFactors.map { RowBranch($0) } }
}

/// s · drop(x) Aᵀ Bᵀ with A `[rank, inputs]` and B `[outputs, rank]`.
package struct LowRankFactors {
    /// A `[rank, inputs]`.
    package let a: Tensor
    /// B `[outputs, rank]`.
    package let b: Tensor
    package let scale: Double
    /// Dropout probability of the inputs in training.
    package let dropout: Double

    package init(a: Tensor, b: Tensor, scale: Double, dropout: Double) {
        (self.a, self.b, self.scale, self.dropout) = (a, b, scale, dropout)
    }
}

/// s · x ΔWᵀ with ΔW = (B₁ᵀ A₁) ∘ (B₂ᵀ A₂), A `[rank, inputs]` and B `[rank, outputs]`, all contiguous.
package struct HadamardFactors {
    let first, second: (a: Tensor, b: Tensor)
    let scale: Double

    package init(_ first: (a: Tensor, b: Tensor), _ second: (a: Tensor, b: Tensor), scale: Double) {
        (self.first, self.second, self.scale) = (first, second, scale)
    }
}

/// y = g ⊙ (W (h ⊙ x) + b + s · drop(x) ΔWᵀ): what a frozen adapter does to rows of a mixed-adapter batch. ΔW is a low-rank product,
/// or the Hadamard product of two.
package final class RowBranch {
    private let factors: LowRankFactors?
    private let product: HadamardFactors?
    /// h, with as many elements as inputs.
    let inputGain: Tensor?
    /// g, with as many elements as outputs.
    private let outputGain: Tensor?
    /// Whether the bias b is outside of the gain.
    private let keepsBias: Bool

    /// - Parameters:
    ///   - factors: A, B and s.
    ///   - inputGain: h; not with factors.
    ///   - outputGain: g.
    ///   - keepsBias: whether the bias b is outside of the gain.
    package init(
        _ factors: LowRankFactors? = nil, inputGain: Tensor? = nil, outputGain: Tensor? = nil, keepsBias: Bool = false
    ) {
        (self.factors, self.inputGain, self.outputGain, self.keepsBias) = (factors, inputGain, outputGain, keepsBias)
        product = nil
    }

    /// A Hadamard product.
    package init(_ product: HadamardFactors) {
        (self.product, factors, inputGain, outputGain, keepsBias) = (product, nil, nil, nil, false)
    }

    var dropout: Double { factors?.dropout ?? 0 }
    var changesOutput: Bool { factors != nil || product != nil || outputGain != nil }

    func applied(to rows: Range<Int>) -> Functions.RowBranch {
        if let product {
            let (a, b) = product.first
            return Functions.RowBranch(rows: rows, factors: (a, b, product.scale), others: product.second)
        }
        return Functions.RowBranch(
            rows: rows, factors: factors.map { ($0.a, $0.b, $0.scale) }, gain: outputGain, keepsBias: keepsBias)
    }
}

/// A route's only adapter at a projection, if it may have a ``RowBranch``.
private final class RoutedBranch {
    private let adapter: any WeightAdapter
    private var frozen: RowBranch?

    init(_ adapter: any WeightAdapter) { self.adapter = adapter }

    /// The adapter's branch.
    /// - Parameter isFrozen: whether the adapter doesn't change, so that its branch can be kept.
    func branch(isFrozen: Bool) -> RowBranch? {
        guard isFrozen else { return adapter.rowBranch }
        if let frozen { return frozen }
        frozen = adapter.rowBranch
        return frozen
    }
}
