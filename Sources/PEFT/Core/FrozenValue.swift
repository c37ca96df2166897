import Torch

/// What an adapter computes from its parameters alone, such as DoRA's norms. It is kept while they are frozen, so that
/// generating a token doesn't compute it again.
final class FrozenValue<Value> {
    private var known: (value: Value, sources: [(tensor: Tensor, writes: Int)])?

    /// The value of these parameters. In training it is computed at each call.
    func callAsFunction(of parameters: [Tensor], _ make: () -> Value) -> Value {
        guard !areGradientsEnabled, !parameters.contains(where: \.requiresGrad) else {
            known = nil
            return make()
        }
        if let known,
            zip(known.sources, parameters).allSatisfy({ $0.tensor === $1 && $0.writes == $1.writeCount })
        {
            return known.value
        }
        let value = make()
        known = (value, parameters.map { ($0, $0.writeCount) })
        return value
    }
}

/// An adapter whose frozen values take much more memory than its parameters.
protocol FrozenMemory {
    /// In bytes.
    var frozenBytes: Int { get }
}

extension Adapter {
    /// Memory of the parameters and of what is computed from them once they are frozen, in bytes.
    package var frozenBytes: Int {
        let computed = attached.map { ($0.adapter as? any FrozenMemory)?.frozenBytes ?? 0 }
        return storedTensors().values.reduce(0) { $0 + $1.byteCount } + computed.reduce(0, +)
    }
}
