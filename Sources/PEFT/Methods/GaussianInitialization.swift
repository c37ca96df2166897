import PEFTSupport
import Torch

/// A normal with standard deviation 1/r, B zero.
public struct GaussianInitialization: LoRAInitialization {
    public static let name = "gaussian"

    public init() {}

    public func initialize(a: Tensor, b: Tensor, from random: inout SeededRandom) {
        a.fillNormal(deviation: 1 / Double(a.dim(0)), from: &random)
    }
}
