import Torch

/// NEFTune (Jain et al. 2023, algorithm 1): uniform noise on the embedded tokens while training.
///
/// The noise of a sequence of L tokens of size d is uniform in ±α / √(L d). It is drawn from the enclosing
/// ``DropoutScope``, so a resumed run draws the same, and there is none in evaluation.
package enum EmbeddingNoise {
    @TaskLocal private static var alpha = 0.0

    /// Runs a forward pass with noise of magnitude α; 0 for none.
    package static func run<Result>(alpha: Double, _ body: () throws -> Result) rethrows -> Result {
        guard alpha > 0 else { return try body() }
        return try $alpha.withValue(alpha, operation: body)
    }

    /// Packed embedded tokens `[tokens, size]` with noise; `offsets` are where the sequences start, and the end.
    package static func added(to embedded: Tensor, offsets: [Int]) -> Tensor {
        guard alpha > 0, let seed = DropoutScope.seed() else { return embedded }
        let (tokens, size) = (embedded.dim(0), embedded.dim(1))
        let noise = Tensor.empty([tokens, size], device: embedded.device)
        if embedded.device != .meta { noise.fillUniform(-1, 1, seed: seed) }
        var magnitudes: [Float] = []
        for (start, end) in zip(offsets, offsets.dropFirst()) {
            let magnitude = alpha / Double((end - start) * size).squareRoot()
            magnitudes += Array(repeating: Float(magnitude), count: end - start)
        }
        let scaled = noise * Tensor(magnitudes, shape: [tokens, 1], device: embedded.device)
        return embedded + scaled.to(embedded.dtype)
    }
}
