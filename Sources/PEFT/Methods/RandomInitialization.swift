import PEFTSupport
import Torch

/// A Kaiming uniform and B uniform in ±1/√r: ΔW starts as noise, for tests.
package struct RandomInitialization: LoRAInitialization {
    package static let name = "false"
    package static let isOffered = false

    package init() {}

    package var json: JSON { false }

    package mutating func read(_ json: JSON) throws -> Bool { [false, "false", "random"].contains(json) }

    package func initialize(a: Tensor, b: Tensor, from random: inout SeededRandom) {
        KaimingInitialization.fill(a, from: &random)
        let limit = 1 / Double(a.dim(0)).squareRoot()
        b.fillUniform(-limit, limit, from: &random)
    }
}
