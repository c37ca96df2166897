import PEFTSupport
import Torch
import TorchNN

extension LanguageModel {
    /// Enlarges the input embeddings and, unless it is tied to them, the output layer to `tokens` rows.
    ///
    /// As in the `resize_token_embeddings` of transformers, the new rows are samples of a normal distribution with the
    /// mean of the existing rows and 10⁻⁹ times their covariance (Hewitt 2021, "Initializing new word embeddings for
    /// pretrained language models"). They are a function of the seed.
    /// - Throws: ``PEFTError`` if the model's vocabulary can't be enlarged.
    func growVocabulary(to tokens: Int, seed: UInt64) throws {
        guard let table = vocabularyTable else {
            throw PEFTError("this \(family) model has no input embeddings to enlarge", remedy: "remove --add-tokens")
        }
        guard (self as? any CausalModel)?.hasFixedVocabulary != true else {
            throw PEFTError(
                "this \(family) model has per-layer embeddings of its tokens, which can't be enlarged",
                remedy: "enlarge the model with resize_token_embeddings of transformers and save it")
        }
        guard ownOutputLayer?.bias == nil else {
            throw PEFTError(
                "the output layer of this \(family) model has a bias per token, which can't be enlarged",
                remedy: "enlarge the model with resize_token_embeddings of transformers and save it")
        }
        guard tokens > table.entries else { return }
        try withTorchErrors {
            try withoutGradients {
                table.weight = try VocabularyGrowth.grown(table.weight, to: tokens, seed: seed, stream: 0)
                if let output = ownOutputLayer, output.outputs < tokens {
                    output.weight = try VocabularyGrowth.grown(output.weight, to: tokens, seed: seed, stream: 1)
                }
            }
        }
    }
}

/// New rows of a vocabulary matrix `[tokens, size]`.
package enum VocabularyGrowth {
    /// The factor of the covariance.
    private static let epsilon = 1e-9
    /// Rows of the matrix, and new rows, that are processed at once.
    private static let (chunk, block) = (8192, 64)

    /// The matrix with new rows, in its dtype; a quantized one is dequantized to fp32.
    package static func grown(_ weight: any LinearWeight, to tokens: Int, seed: UInt64, stream: UInt64) throws
        -> any LinearWeight
    {
        guard weight.device != .meta else {
            let type = weight.denseTensor?.dtype ?? .float32
            return DenseWeight(Tensor.zeros([tokens, weight.inputs], dtype: type, device: .meta))
        }
        let stored = weight.denseTensor?.detached() ?? weight.dense(as: .float32)
        let rows = newRows(like: stored, count: tokens - stored.dim(0), seed: seed, stream: stream)
        return DenseWeight(Tensor.concatenated([stored, rows]))
    }

    /// Samples of N(μ, ε Σ): μ + √(ε / n) zᵀ (X − μ) with z ~ N(0, 1)ⁿ for the n rows of X.
    private static func newRows(like stored: Tensor, count: Int, seed: UInt64, stream: UInt64) -> Tensor {
        let (n, size) = (stored.dim(0), stored.dim(1))
        func part(_ start: Int) -> Tensor {
            stored.narrowed(axis: 0, start..<min(start + chunk, n)).to(.float32)
        }
        let starts = Array(stride(from: 0, to: n, by: chunk))
        let sum = starts.reduce(Tensor.zeros([size], dtype: .float64)) { sum, start in
            sum + part(start).to(.float64).sum(axes: [0]).to(.cpu)
        }
        let mean = (sum * (1 / Double(n))).to(.float32)
        var random = SeededRandom(seed: seed, stream: 0xADD0 + stream)
        let blocks = stride(from: 0, to: count, by: block).map { first -> Tensor in
            let rows = min(block, count - first)
            var (noise, weights) = (
                Tensor.zeros([rows, size], dtype: .float32), Tensor.zeros([rows, 1], dtype: .float32)
            )
            for start in starts {
                let values = part(start).to(.cpu)
                let z = Tensor.zeros([rows, values.dim(0)], dtype: .float32)
                z.fillNormal(from: &random)
                noise = noise + z.matmul(values)
                weights = weights + z.sum(axes: [1], keep: true)
            }
            return mean + (noise - weights * mean) * (epsilon / Double(n)).squareRoot()
        }
        return Tensor.concatenated(blocks).to(stored.dtype).to(stored.device)
    }
}
