import PEFTSupport
import Testing
import Torch

@testable import TorchNN

private final class Inner: Module {
    @ParameterInfo var scale: Tensor
    @ParameterInfo var shift: Tensor
    let plain = Tensor.zeros([9])

    override init() {
        _scale = ParameterInfo(wrappedValue: .ones([2]))
        _shift = ParameterInfo(wrappedValue: .zeros([3]), key: "running.bias")
    }
}

private class Base: Module {
    @ModuleInfo(key: "layer.0.proj") var projection: Linear

    override init() {
        super.init()
        _projection.wrappedValue = Linear(2, 3, device: .cpu)
    }
}

private final class Outer: Base {
    @ModuleInfo var block: [Inner]
    @ModuleInfo(key: "maybe") var present: Inner?
    @ModuleInfo var absent: Inner?
    @ModuleInfo var again: Inner
    @ModuleInfo var table: Embedding

    override init() {
        let shared = Inner()
        _block = ModuleInfo(wrappedValue: [Inner(), shared])
        _present = ModuleInfo(wrappedValue: Inner(), key: "maybe")
        _absent = ModuleInfo(wrappedValue: nil)
        _again = ModuleInfo(wrappedValue: shared)
        _table = ModuleInfo(wrappedValue: Embedding(5, 2, device: .cpu))
        super.init()
    }
}

@Suite struct ModuleTests {
    @Test func pathsAreTheKeys() {
        let model = Outer()
        #expect(
            model.parameters().map(\.path) == [
                "layer.0.proj.weight", "layer.0.proj.bias", "block.0.scale", "block.0.running.bias", "block.1.scale",
                "block.1.running.bias", "maybe.scale", "maybe.running.bias", "table.weight",
            ])
        // A part that is reached twice is listed under both paths; its tensors count once.
        #expect(
            model.namedModules().map(\.path) == [
                "", "layer.0.proj", "block.0", "block.1", "maybe", "again", "table",
            ])
        #expect(model.parameterCount == 9 + 3 * 5 + 10)
    }

    @Test func freezingTakesEverythingOutOfTraining() {
        let model = Outer()
        #expect(model.trainableParameters().isEmpty)
        for (path, parameter) in model.parameters() where path.hasSuffix("scale") {
            parameter.tensor.requiresGrad = true
        }
        #expect(model.trainableParameters().map(\.path) == ["block.0.scale", "block.1.scale", "maybe.scale"])
        model.freeze()
        #expect(model.trainableParameters().isEmpty)
    }

    @Test func parametersAreReferences() {
        let inner = Inner()
        let replaced = Tensor([5, 6] as [Float])
        inner.parameters().first { $0.path == "scale" }?.parameter.tensor = replaced
        #expect(inner.scale === replaced)
        inner.scale = .zeros([2])
        #expect(inner.parameters()[0].parameter.tensor.array(Float.self) == [0, 0])
    }

    @Test func layersComputeWhatTheySay() throws {
        let embedding = Embedding(3, 2, device: .cpu)
        embedding.weight = DenseWeight(Tensor([0, 1, 2, 3, 4, 5] as [Float], shape: [3, 2]))
        #expect(embedding(Tensor([2, 0])).array(Float.self) == [4, 5, 0, 1])
        let norm = RMSNorm(2, epsilon: 0, device: .cpu)
        norm.weight = Tensor([1, 2] as [Float])
        let normed: [Double] = norm(Tensor([3, 4] as [Float], shape: [1, 2])).array()
        let size = 12.5.squareRoot()
        #expect(abs(normed[0] - 3 / size) < 1e-6 && abs(normed[1] - 8 / size) < 1e-6)
        let layer = LayerNorm(2, epsilon: 0, device: .cpu)
        (layer.weight, layer.bias) = (Tensor([1, 2] as [Float]), Tensor([0, 10] as [Float]))
        let centered: [Double] = layer(Tensor([3, 5] as [Float], shape: [1, 2])).array()
        #expect(abs(centered[0] + 1) < 1e-6 && abs(centered[1] - 12) < 1e-6)
        #expect(Linear(4, 5).parameters().map(\.parameter.tensor.device) == [.meta, .meta])
    }

    @Test func packedRows() {
        let rows = PackedSequences([[1, 2, 3], [], [4]])
        #expect(rows.offsets == [0, 3, 3, 4] && rows.lengths == [3, 0, 1])
        #expect((rows.rows, rows.tokens, rows.longest) == (3, 4, 3))
        #expect(rows.ids.array(Int.self) == [1, 2, 3, 4])
        let padded = Tensor([1, 2, 3, 4] as [Float], shape: [4, 1]).padded(rows.offsets)
        #expect(padded.shape == [3, 3, 1])
        #expect(padded.array(Float.self) == [1, 2, 3, 0, 0, 0, 4, 0, 0])
    }
}

/// Adds a number, then scales: the order of two of them shows.
private final class Affine: Module, LinearAdapter {
    let add: Double, scale: Double
    init(add: Double, scale: Double) { (self.add, self.scale) = (add, scale) }
    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor { (base(x) + add) * scale }
    func merged(into weight: Tensor) -> Tensor { weight * scale }
}

@Suite struct LinearTests {
    private func linear() -> Linear {
        let linear = Linear(2, 1, device: .cpu)
        linear.weight = DenseWeight(Tensor([2, 3] as [Float], shape: [1, 2]))
        linear.bias?.tensor = Tensor([10] as [Float])
        return linear
    }

    @Test func adaptersFoldInOrder() {
        let linear = linear()
        let x = Tensor([1, 1] as [Float], shape: [1, 2])
        #expect(linear(x).item() == 15)
        let (first, second) = (Affine(add: 1, scale: 2), Affine(add: 100, scale: 3))
        #expect(linear.attach(first, route: nil) && linear.attach(second, route: nil))
        #expect(linear(x).item() == ((15 + 1) * 2 + 100) * 3)
        linear.detach(first)
        #expect(linear.attach(first, route: nil))
        #expect(linear(x).item() == ((15 + 100) * 3 + 1) * 2)
        linear.detach(first)
        linear.attachBeneath(first)
        #expect(linear(x).item() == ((15 + 1) * 2 + 100) * 3)
        for adapter in [first, second] { linear.detach(adapter) }
        #expect(!linear.attach(linear, route: nil))
        #expect(linear(x).item() == 15)
    }

    @Test func weightsAreReplacedInTheirType() {
        let linear = linear()
        #expect((linear.inputs, linear.outputs) == (2, 1))
        let half = DenseWeight(Tensor([1, 2] as [Float], shape: [1, 2]).to(.bfloat16))
        #expect(
            half.replacing(with: .ones([1, 2], dtype: .float64)).dense(as: .float32).array(Float.self) == [1, 1])
        #expect(
            half.replacing(with: .ones([1, 2], dtype: .float64)).parameters[0].parameter.tensor.dtype == .bfloat16)
        // Adapters are no parts of the model: freezing and saving it leave them alone.
        #expect(linear.attach(Affine(add: 0, scale: 1), route: nil))
        #expect(linear.namedModules().count == 1)
        #expect(linear.parameters().map(\.path) == ["weight", "bias"])
    }
}

@Suite struct KeyValueCacheTests {
    private func column(_ value: Float, tokens: Int = 1) -> Tensor { .full([2, 1, tokens, 1], Double(value)) }

    @Test func holdsWhatWasAppended() {
        let cache = KeyValueCache(batch: 2, heads: 1, capacity: 4, size: 1, dtype: .float32, device: .cpu)
        #expect((cache.length, cache.capacity) == (0, 4))
        _ = cache.append(column(1, tokens: 2), column(-1, tokens: 2))
        let (keys, values) = cache.append(column(3), column(-3))
        #expect(cache.length == 3 && keys.shape == [2, 1, 3, 1])
        #expect(keys.array(Float.self) == [1, 1, 3, 1, 1, 3])
        #expect(values.array(Float.self) == [-1, -1, -3, -1, -1, -3])
    }

    @Test func rowsAreKeptInTheGivenOrder() {
        let cache = KeyValueCache(batch: 2, heads: 1, capacity: 3, size: 1, dtype: .float32, device: .cpu)
        let rows = Tensor([1, 2] as [Float], shape: [2, 1, 1, 1])
        _ = cache.append(rows, rows * 10)
        cache.select(rows: Tensor([1, 1, 0]))
        #expect(cache.length == 1)
        let more = Tensor([7, 8, 9] as [Float], shape: [3, 1, 1, 1])
        let (keys, values) = cache.append(more, more)
        #expect(keys.array(Float.self) == [2, 7, 2, 8, 1, 9])
        #expect(values.array(Float.self) == [20, 7, 20, 8, 10, 9])
    }

    @Test func whatDoesNotFitIsAnError() {
        let cache = KeyValueCache(batch: 2, heads: 1, capacity: 2, size: 1, dtype: .float32, device: .cpu)
        #expect(throws: PEFTError.self) {
            try withTorchErrors { cache.append(column(1, tokens: 3), column(1, tokens: 3)) }
        }
    }
}

@Suite struct DropoutScopeTests {
    private let x = Tensor.ones([1_000])

    private func masks(_ seed: UInt64, _ stream: UInt64) -> [[Float]] {
        DropoutScope.run(seed: seed, stream: stream) { (0..<2).map { _ in dropout(x, 0.5).array() } }
    }

    @Test func isOffOutsideAScope() {
        #expect(dropout(x, 0.5) === x)
        #expect(DropoutScope.draw(0.5) == (0, 0))
        _ = masks(1, 1)
        #expect(dropout(x, 0.5) === x)
        struct Failure: Error {}
        #expect(throws: Failure.self) { try DropoutScope.run(seed: 1, stream: 1) { throw Failure() } }
        #expect(dropout(x, 0.5) === x)
    }

    @Test func seedAndStreamDecideTheMasks() {
        #expect(masks(1, 2) == masks(1, 2))
        #expect(masks(1, 2) != masks(1, 3))
        #expect(masks(1, 2) != masks(2, 2))
        let two = masks(1, 2)
        #expect(two[0] != two[1], "each use draws its own")
        #expect(Set(two[0]) == [0, 2])
        // A probability of 0 draws nothing, so that it doesn't shift the masks that follow.
        let shifted = DropoutScope.run(seed: 1, stream: 2) { () -> [Float] in
            #expect(dropout(x, 0) === x)
            return dropout(x, 0.5).array()
        }
        #expect(shifted == two[0])
    }
}
