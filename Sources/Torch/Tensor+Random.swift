import CTorch
import PEFTSupport

// A random tensor depends only on the seed, on every device and for every number of threads, so that a resumed run
// equals an uninterrupted one.
extension Tensor {
    /// Fills with values uniform in [low, high).
    public func fillUniform(_ low: Double, _ high: Double, from random: inout SeededRandom) {
        check(ct_uniform(pointer, low, high, random.next()))
    }

    /// Fills from a seed of libtorch's generator, with the same values as PyTorch for that seed.
    package func fillUniform(_ low: Double, _ high: Double, seed: UInt64) {
        check(ct_uniform(pointer, low, high, seed))
    }

    /// Fills with normally distributed values.
    public func fillNormal(mean: Double = 0, deviation: Double = 1, from random: inout SeededRandom) {
        check(ct_normal(pointer, mean, deviation, random.next()))
    }

    /// A permutation of 0 ..< count (int64), the same as `torch.randperm`'s for a seed of its CPU generator.
    public static func randomPermutation(_ count: Int, seed: UInt64) -> Tensor {
        wrap(ct_random_permutation(Int64(count), seed))
    }

    /// Integers uniform in 0 ..< 2⁶³ − 1 (int64 `[count]`), the same as `torch.randint`'s for a seed of its CPU generator.
    package static func randomIntegers(_ count: Int, seed: UInt64) -> Tensor {
        wrap(ct_random_integers(Int64(count), seed))
    }

    /// Fills with normally distributed values from a seed of libtorch's generator, with the same values as PyTorch for
    /// that seed.
    public func fillNormal(mean: Double = 0, deviation: Double = 1, seed: UInt64) {
        check(ct_normal(pointer, mean, deviation, seed))
    }

    /// Samples one index per row of probabilities `[rows, entries]`; int64 `[rows]`.
    package func sampled(from random: inout SeededRandom) -> Tensor {
        wrap(ct_multinomial(pointer, random.next())).reshaped(-1)
    }
}
