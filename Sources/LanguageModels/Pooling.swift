import Foundation
import PEFTSupport
import Torch
import TorchNN

/// Pooling of hidden states into one vector per sequence, stored as in sentence-transformers (`modules.json`,
/// `1_Pooling/config.json`).
public struct Pooling: Codable, Sendable, Equatable {
    /// Which hidden states become the embedding.
    public enum Mode: String, Codable, Sendable, CaseIterable {
        /// The mean over the sequence's tokens.
        case mean
        /// The first token's state.
        case cls
        /// The last token's state.
        case lastToken = "last-token"
        /// The sum over the sequence's tokens, divided by the square root of their number.
        case meanSqrtLength = "mean-sqrt-length"
        /// The mean over the sequence's tokens with the weights 1, 2, 3 and so on (SGPT; Muennighoff 2022).
        case weightedMean = "weighted-mean"

        /// The mode's name in a `1_Pooling/config.json` after `pooling_mode_`, and in newer ones.
        fileprivate var names: (older: String, newer: String) {
            switch self {
            case .mean: ("mean_tokens", "mean")
            case .cls: ("cls_token", "cls")
            case .lastToken: ("lasttoken", "lasttoken")
            case .meanSqrtLength: ("mean_sqrt_len_tokens", "mean_sqrt_len_tokens")
            case .weightedMean: ("weightedmean_tokens", "weightedmean")
            }
        }
    }

    /// Which hidden states become the embedding.
    public var mode: Mode
    /// Whether vectors are L2-normalized.
    public var normalizes: Bool

    /// - Parameters:
    ///   - mode: which hidden states become the embedding.
    ///   - normalizes: whether embeddings are scaled to length 1.
    public init(_ mode: Mode = .mean, normalizes: Bool = true) { (self.mode, self.normalizes) = (mode, normalizes) }

    /// Reads a sentence-transformers folder; `nil` for other folders.
    /// - Throws: ``PEFTError`` for an unsupported pooling.
    package static func read(in folder: URL) throws -> Pooling? {
        guard SentenceModules.isThere(in: folder) else { return nil }
        var result = Pooling(normalizes: false)
        for module in try SentenceModules.read(in: folder) {
            if module.kind == .normalize { result.normalizes = true }
            guard module.kind == .pooling else { continue }
            let settings = module.folder.appendingPathComponent("config.json")
            result.mode = try mode(JSON.read(settings), file: settings.path)
        }
        return result
    }

    /// The mode in a `1_Pooling/config.json`: one flag per mode, or the newer `pooling_mode`.
    private static func mode(_ json: JSON, file: String) throws -> Mode {
        let flags = (json.object ?? [:]).filter { $0.key.hasPrefix("pooling_mode_") && $0.value.bool == true }
        let names = json["pooling_mode"]?.string.map { [$0] } ?? flags.keys.sorted()
        let mode = Mode.allCases.first { names == ["pooling_mode_" + $0.names.older] || names == [$0.names.newer] }
        guard let mode else {
            let all = Mode.allCases.map(\.names.newer).joined(separator: ", ")
            throw PEFTError(
                "\(file) has the pooling \(names.joined(separator: ", ")), which is not supported",
                remedy: "use one of \(all)")
        }
        return mode
    }

    /// Writes the files of ``read(in:)`` into an existing folder.
    /// - Parameter denses: the dense layers between pooling and normalization.
    func write(into folder: URL, size: Int, maximumLength: Int, denses: [PooledDense] = []) throws {
        let kinds: [SentenceModules.Kind] =
            [.transformer, .pooling] + denses.map { _ in .dense } + (normalizes ? [.normalize] : [])
        let modules = kinds.enumerated().map { index, kind in
            (name: kind.rawValue, path: index == 0 ? "" : "\(index)_\(kind.rawValue)")
        }
        let list = modules.enumerated().map { index, module -> JSON in
            [
                "idx": .integer(index), "name": .string(String(index)), "path": .string(module.path),
                "type": .string("sentence_transformers.models.\(module.name)"),
            ]
        }
        var settings: [String: JSON] = [
            "word_embedding_dimension": .integer(size), "pooling_mode_max_tokens": false,
        ]
        for mode in Mode.allCases { settings["pooling_mode_" + mode.names.older] = .bool(mode == self.mode) }
        let limits: JSON = ["max_seq_length": .integer(maximumLength), "do_lower_case": false]
        for (name, json) in [
            ("modules.json", JSON.array(list)), ("1_Pooling/config.json", JSON.object(settings)),
            ("sentence_bert_config.json", limits),
        ] {
            let file = folder.appendingPathComponent(name)
            do {
                try FileManager.default.createDirectory(
                    at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            } catch { throw PEFTError("can't create \(folder.path)", remedy: "check permissions and free space") }
            try AtomicFile.write(json.text() + "\n", to: file)
        }
        for (index, dense) in denses.enumerated() {
            let own = folder.appendingPathComponent("\(index + 2)_Dense")
            do { try FileManager.default.createDirectory(at: own, withIntermediateDirectories: true) } catch {
                throw PEFTError("can't create \(own.path)", remedy: "check permissions and free space")
            }
            try dense.write(into: own)
        }
    }

    /// - Parameters:
    ///   - states: hidden states of packed sequences, `[tokens, size]`.
    ///   - offsets: where each sequence starts, and the end.
    ///   - denses: layers between pooling and normalization.
    /// - Returns: `[rows, size]`.
    func callAsFunction(_ states: Tensor, offsets: [Int], denses: [PooledDense] = []) -> Tensor {
        let rows = offsets.count - 1
        let pooled: Tensor
        switch mode {
        case .cls: pooled = states.selecting(Tensor(Array(offsets.dropLast()), device: states.device))
        case .lastToken:
            pooled = states.selecting(Tensor(offsets.dropFirst().map { $0 - 1 }, device: states.device))
        case .mean, .meanSqrtLength, .weightedMean:
            var shares = [Float](repeating: 0, count: rows * states.dim(0))
            for row in 0..<rows {
                let start = offsets[row]
                let count = offsets[row + 1] - start
                for place in 0..<count {
                    shares[row * states.dim(0) + start + place] = share(of: place, count: count)
                }
            }
            let matrix = Tensor(shares, shape: [rows, states.dim(0)], device: states.device)
            pooled = matrix.to(states.dtype).matmul(states)
        }
        let layered = denses.reduce(pooled) { $1($0) }
        return normalizes ? layered.normalized() : layered
    }

    /// The weight of one of a sequence's tokens in its embedding.
    private func share(of place: Int, count: Int) -> Float {
        switch mode {
        case .weightedMean: Float(place + 1) / Float(count * (count + 1) / 2)
        case .meanSqrtLength: 1 / Float(count).squareRoot()
        default: 1 / Float(count)
        }
    }
}

extension Tensor {
    /// Rows x / max(‖x‖, 10⁻¹²), as PyTorch's `normalize`.
    func normalized() -> Tensor { self / squared().sum(axes: [-1], keep: true).sqrt().atLeast(1e-12) }
}
