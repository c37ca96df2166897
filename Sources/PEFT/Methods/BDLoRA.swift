import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Block-diagonal LoRA (BD-LoRA): A or B of chosen projections is block-diagonal, so that servers which divide the
/// projection among devices don't communicate. The file holds the blocks: A `[r, in / n]` or B `[out, r / n]`.
package struct BDLoRA: NestedLoRAVariant {
    package var settings: [String: JSON]?

    package init() {}

    package static let option = "bdlora"
    package static let key = "use_bdlora"
    package static let help = "block-diagonal A or B for projections that are divided among devices (BD-LoRA)"
    package static let defaultSettings: [String: JSON] = [
        "target_modules_bd_a": .null, "target_modules_bd_b": .null, "nblocks": 1, "match_strict": true,
    ]

    package func checkSettings() throws {
        guard settings != nil else { return }
        _ = try count("nblocks")
        let (a, b) = (try patterns("target_modules_bd_a"), try patterns("target_modules_bd_b"))
        _ = try flag(setting("match_strict"))
        if let both = a.first(where: b.contains) {
            throw PEFTError(
                "'\(both)' is in both lists of 'use_bdlora'", remedy: "make either A or B of it block-diagonal")
        }
    }

    private func patterns(_ name: String) throws -> [String] {
        setting(name) == .null ? [] : try names(setting(name))
    }

    package func label(_ name: String) -> String { "BD-" + name }

    package func validate(beside variants: LoRAVariants) throws {
        guard variants.used.allSatisfy({ $0.isPlain || $0 is BDLoRA }) else {
            throw PEFTError(
                "BD-LoRA can't be combined with a variant that changes the branch or the weight",
                remedy: "remove --bdlora or the other option")
        }
    }

    package func validate(embedding path: String, isTied: Bool) throws { throw Self.embeddingError(path) }

    package var isPlain: Bool { false }

    /// Which factor of a projection is block-diagonal.
    private enum Blocks { case a, b, none }

    /// As in Hugging Face PEFT, a pattern is any part of the path.
    private func blocks(at path: String) throws -> Blocks {
        func matches(_ name: String) throws -> Bool { try patterns(name).contains { path.contains($0) } }
        switch (try matches("target_modules_bd_a"), try matches("target_modules_bd_b")) {
        case (true, true):
            throw PEFTError(
                "'\(path)' matches both lists of 'use_bdlora'", remedy: "make either A or B of it block-diagonal")
        case (true, false): return .a
        case (false, true): return .b
        case (false, false):
            guard setting("match_strict") == false else {
                throw PEFTError(
                    "'\(path)' matches no list of 'use_bdlora'", remedy: "add it, or set match_strict to false")
            }
            return .none
        }
    }

    package func shapes(rank: Int, at site: ModelOutline.LinearSite) throws -> (a: [Int], b: [Int])? {
        let n = try count("nblocks")
        let kind = try blocks(at: site.path)
        guard kind != .none else { return nil }
        let size = kind == .a ? site.inputs : site.outputs
        guard rank.isMultiple(of: n), size.isMultiple(of: n) else {
            throw PEFTError(
                "\(n) blocks don't divide \(rank) and \(size) at '\(site.path)'",
                remedy: "use another 'nblocks' or rank")
        }
        return kind == .a
            ? ([rank, site.inputs / n], [site.outputs, rank]) : ([rank, site.inputs], [site.outputs, rank / n])
    }

    package func adapter(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & LinearAdapter)?
    {
        let n = try count("nblocks")
        switch try blocks(at: branch.path) {
        case .none: return nil
        case .a: return BlockDiagonalLoRAAdapter(linear, branch, a: n, b: 1, context)
        case .b: return BlockDiagonalLoRAAdapter(linear, branch, a: 1, b: n, context)
        }
    }
}

/// A LoRA branch with block-diagonal factors.
final class BlockDiagonalLoRAAdapter: LoRAAdapter {
    /// Numbers of blocks of A and B.
    private let (blocksOfA, blocksOfB): (Int, Int)

    /// - Parameters:
    ///   - a: number of blocks of A, which is then `[r, in / a]`.
    ///   - b: number of blocks of B, which is then `[out, r / b]`.
    init(_ linear: Linear, _ branch: LoRABranch, a: Int, b: Int, _ context: AttachmentContext) {
        (blocksOfA, blocksOfB) = (a, b)
        super.init(linear, branch, context)
        let (dtype, device) = (context.dtype, context.device)
        if a > 1 {
            self.a = .empty([branch.rank, linear.inputs / a], dtype: dtype, device: device)
            let bound = (6 / Double(linear.inputs / a)).squareRoot()
            if device != .meta { self.a.fillUniform(-bound, bound, from: &context.random) }
        }
        if b > 1 { self.b = .zeros([linear.outputs, branch.rank / b], dtype: dtype, device: device) }
    }

    override var isDelta: Bool { false }
    override var factors: (a: Tensor, b: Tensor) {
        (Self.dense(a, blocks: blocksOfA), Self.dense(b, blocks: blocksOfB))
    }

    /// The block-diagonal matrix `[rows, n · columns]` of n blocks, stacked as `[rows, columns]`.
    private static func dense(_ blocks: Tensor, blocks n: Int) -> Tensor {
        guard n > 1 else { return blocks }
        let (rows, columns) = (blocks.dim(0) / n, blocks.dim(1))
        func zeros(_ count: Int) -> Tensor { .zeros([rows, count], dtype: blocks.dtype, device: blocks.device) }
        return Tensor.concatenated(
            (0..<n).map { j in
                let own = blocks.narrowed(axis: 0, (j * rows)..<((j + 1) * rows))
                let parts = [zeros(j * columns), own, zeros((n - 1 - j) * columns)].filter { $0.dim(1) > 0 }
                return Tensor.concatenated(parts, axis: 1)
            })
    }
}
