import Testing
import Torch

@testable import TorchNN

struct LayerProbeTests {
    private final class Layer: Module, StackedLayer {}

    /// Three layers, of which one divides by zero.
    @Test(arguments: [0, 1, 2, 3])
    func findsTheFirstLayerWithoutFiniteOutput(bad: Int) {
        let x = Tensor([bad == 0 ? Float.nan : 1, 2], shape: [2])
        let (result, layer) = LayerProbe.run {
            (1...3).reduce(x) { x, number in
                checkpointed(x, Layer()) { number == bad ? $1 / Tensor.zeros([2]) : $1 }
            }
        }
        #expect(layer == bad)
        let values = result.array(Float.self)
        #expect(values.contains { !$0.isFinite })
    }

    @Test func findsNothingInFiniteLayers() {
        let (_, layer) = LayerProbe.run { checkpointed(Tensor.zeros([2]), Layer()) { $1 + 1 } }
        #expect(layer == nil)
    }
}
