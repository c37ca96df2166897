import PEFTSupport
import Torch

/// A Kaiming uniform and B uniform in ±1/√r: ΔW starts as noise, for tests.
public struct RandomInitialization: LoRAInitialization {
    public static let name = "false"
    public static let isForTests = true

    public init() {}

    public var json: JSON { false }

    public mutating func read(_ json: JSON) throws -> Bool { [false, "false", "random"].contains(json) }

    public func initialize(a: Tensor, b: Tensor, from random: inout SeededRandom) {
        KaimingInitialization.fill(a, from: &random)
        let limit = 1 / Double(a.dim(0)).squareRoot()
        b.fillUniform(-limit, limit, from: &random)
    }
}
