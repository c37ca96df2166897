import CTorch
import Support

// A tensor that is filled from a source is a function of the seed alone, on every device and for every number
// of threads, which is what makes a resumed run equal an uninterrupted one.
extension Tensor {
    /// Fills with numbers uniform in [low, high).
    public func fillUniform(_ low: Double, _ high: Double, from random: inout SeededRandom) {
        check(ct_uniform(pointer, low, high, random.next()))
    }

    /// The same from a seed of libtorch's generator, whose numbers other programs draw from the same seed too.
    public func fillUniform(_ low: Double, _ high: Double, seed: UInt64) {
        check(ct_uniform(pointer, low, high, seed))
    }

    /// Fills with normal numbers.
    public func fillNormal(mean: Double = 0, deviation: Double = 1, from random: inout SeededRandom) {
        check(ct_normal(pointer, mean, deviation, random.next()))
    }

    /// One index per row of probabilities [rows, entries]; int64 [rows].
    public func sampled(from random: inout SeededRandom) -> Tensor {
        wrap(ct_multinomial(pointer, random.next())).reshaped(-1)
    }
}
