import PEFTSupport
import Torch

/// A normal with standard deviation 1/r, B zero.
package struct GaussianInitialization: LoRAInitialization {
    package static let name = "gaussian"

    package init() {}

    package func initialize(a: Tensor, b: Tensor, from random: inout SeededRandom) {
        a.fillNormal(deviation: 1 / Double(a.dim(0)), from: &random)
    }
}
