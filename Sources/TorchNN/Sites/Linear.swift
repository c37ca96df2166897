import Torch

/// A projection y = x Wᵀ + b with an ordered list of adapters.
public final class Linear: Module, AdapterSite {
    package var weight: any LinearWeight
    package let bias: Parameter?
    private var slot = AdapterSlot<any LinearAdapter>()

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
            return routed(x, spans, whole: weight.project(x, bias: bias?.tensor))
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
        let parts = list.compactMap { $0.projection(isRouted: isRouted($0)) }
        return zip(list, Functions.projections(x, parts)).map { linear, whole in
            guard let spans, !linear.slot.routed.isEmpty else { return whole }
            return linear.routed(x, spans, whole: whole)
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

    /// Applies each span's adapters to its part of `whole`, the base output of all sequences.
    private func routed(_ x: Tensor, _ spans: [RowRouting.Span], whole: Tensor) -> Tensor {
        let isInPlace = !areGradientsEnabled && x.shape.count == 2
        let branches = isInPlace ? spans.map(loraBranch) : []
        if branches.contains(where: { $0 != nil }) {
            // One call adds the branches of all spans that have one.
            Functions.loraBranches(
                whole, x: x, offsets: spans.map(\.tokens.lowerBound) + [whole.dim(0)],
                factors: branches.map { $0.map { ($0.a, $0.b, $0.scale) } })
        }
        func output(_ span: RowRouting.Span, _ known: Tensor) -> Tensor? {
            guard let adapters = slot.routed[span.route], !adapters.isEmpty else { return nil }
            let part = x.narrowed(axis: 0, span.tokens)
            return InvocationScope.within(span: span.tokens) {
                BaseProjection(self, adapters: adapters[...], known: (part, known))(part)
            }
        }
        if isInPlace, spans.count > 1 {
            for (index, span) in spans.enumerated() where branches[index] == nil {
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

    /// The LoRA branch of a span, if it is its only adapter and few tokens have it: many use blocked GEMMs.
    private func loraBranch(_ span: RowRouting.Span) -> LowRankFactors? {
        guard span.tokens.count <= Self.mostGroupedTokens, let adapters = slot.routed[span.route],
            adapters.count == 1, let factors = adapters[0].asWeightAdapter?.lowRankFactors,
            factors.dropout == 0 || !DropoutScope.isLive
        else { return nil }
        return factors
    }

    private static let mostGroupedTokens = 8

    package func attach(_ adapter: Module, route: Int?) -> Bool { slot.attach(adapter, route: route) }
    package func attachBeneath(_ adapter: Module) { slot.attachBeneath(adapter) }
    package func detach(_ adapter: Module) { slot.detach(adapter) }
    package func clear(route: Int) { slot.clear(route: route) }
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
}

extension WeightAdapter {
    package func merged(into weight: any LinearWeight) throws -> (any LinearWeight)? { nil }
    package var replacementWeight: (any LinearWeight)? { nil }
    package var lowRankFactors: LowRankFactors? { nil }
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
