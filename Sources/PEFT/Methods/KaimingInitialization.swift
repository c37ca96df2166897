import PEFTSupport
import Torch

/// The default: A Kaiming uniform, B zero, so that training starts at the base model.
package struct KaimingInitialization: LoRAInitialization {
    package static let name = "true"

    package init() {}

    package var json: JSON { true }

    package mutating func read(_ json: JSON) throws -> Bool { [true, "true", "default", "kaiming"].contains(json) }

    /// Fills A `[r, in]` uniformly in ±1/√in (Kaiming with a = √5, as in Hugging Face PEFT).
    static func fill(_ a: Tensor, from random: inout SeededRandom) {
        let bound = 1 / Double(a.dim(1)).squareRoot()
        a.fillUniform(-bound, bound, from: &random)
    }
}
