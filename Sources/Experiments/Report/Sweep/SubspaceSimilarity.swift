/// Similarity of the subspaces of two adapters (Hu et al. 2021, section 7.2, eq. 4):
/// φ(A, A', i, j) = ‖V_iᵀ V'_j‖²_F / min(i, j), with the first i and j right-singular vectors; in 0 (orthogonal) … 1 (contained).
package struct SubspaceSimilarity: Codable, Sendable {
    package var from: String
    package var to: String
    /// Whether the two come from different seeds of the same value.
    package var isBetweenSeeds: Bool
    /// φ with all directions of both, averaged over the projections.
    package var whole: Double
    /// φ of the strongest direction of each.
    package var first: Double
    /// Expected φ of two random subspaces of these dimensions: max(i, j) / inputs, averaged over the projections.
    package var random: Double
    /// φ(i, j) for i = 1 … ranks of `from` (rows) and j = 1 … ranks of `to`, at most 64 each.
    package var grid: [[Double]]
}
