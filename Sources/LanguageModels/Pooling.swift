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
        let file = folder.appendingPathComponent("modules.json")
        guard FileManager.default.fileExists(atPath: file.path) else { return nil }
        var result = Pooling(normalizes: false)
        for module in try JSON.read(file).array ?? [] {
            let type = module["type"]?.string ?? ""
            let name = type.split(separator: ".").last.map(String.init) ?? type
            switch name {
            case "Transformer": continue
            case "Normalize": result.normalizes = true
            case "Pooling":
                let path = module["path"]?.string ?? "1_Pooling"
                guard !path.hasPrefix("/"), !path.contains("..") else {
                    throw PEFTError(
                        "\(file.path) has the path '\(path)' outside its folder",
                        remedy: "use a path inside the folder")
                }
                let settings = folder.appendingPathComponent(path).appendingPathComponent("config.json")
                result.mode = try mode(JSON.read(settings), file: settings.path)
            default:
                throw PEFTError(
                    "\(file.path) has a module of type '\(type)', which is not supported",
                    remedy: "supported types are Transformer, Pooling and Normalize")
            }
        }
        return result
    }

    /// The mode in a `1_Pooling/config.json`: one flag per mode, or the newer `pooling_mode`.
    private static func mode(_ json: JSON, file: String) throws -> Mode {
        let flags = (json.object ?? [:]).filter { $0.key.hasPrefix("pooling_mode_") && $0.value.bool == true }
        switch json["pooling_mode"]?.string.map({ [$0] }) ?? flags.keys.sorted() {
        case ["pooling_mode_mean_tokens"], ["mean"]: return .mean
        case ["pooling_mode_cls_token"], ["cls"]: return .cls
        case ["pooling_mode_lasttoken"], ["lasttoken"]: return .lastToken
        case let others:
            throw PEFTError(
                "\(file) has the pooling \(others.joined(separator: ", ")), which is not supported",
                remedy: "use mean, cls or lasttoken pooling"
            )
        }
    }

    /// Writes the files of ``read(in:)`` into an existing folder.
    func write(into folder: URL, size: Int, maximumLength: Int) throws {
        let modules: [(name: String, path: String)] =
            [("Transformer", ""), ("Pooling", "1_Pooling")] + (normalizes ? [("Normalize", "2_Normalize")] : [])
        let list = modules.enumerated().map { index, module -> JSON in
            [
                "idx": .integer(index), "name": .string(String(index)), "path": .string(module.path),
                "type": .string("sentence_transformers.models.\(module.name)"),
            ]
        }
        let settings: JSON = [
            "word_embedding_dimension": .integer(size), "pooling_mode_cls_token": .bool(mode == .cls),
            "pooling_mode_mean_tokens": .bool(mode == .mean), "pooling_mode_max_tokens": false,
            "pooling_mode_mean_sqrt_len_tokens": false, "pooling_mode_lasttoken": .bool(mode == .lastToken),
        ]
        let limits: JSON = ["max_seq_length": .integer(maximumLength), "do_lower_case": false]
        for (name, json) in [
            ("modules.json", JSON.array(list)), ("1_Pooling/config.json", settings),
            ("sentence_bert_config.json", limits),
        ] {
            let file = folder.appendingPathComponent(name)
            do {
                try FileManager.default.createDirectory(
                    at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            } catch { throw PEFTError("can't create \(folder.path)", remedy: "check permissions and free space") }
            try AtomicFile.write(json.text() + "\n", to: file)
        }
    }

    /// - Parameters:
    ///   - states: hidden states of packed sequences, `[tokens, size]`.
    ///   - offsets: where each sequence starts, and the end.
    /// - Returns: `[rows, size]`.
    func callAsFunction(_ states: Tensor, offsets: [Int]) -> Tensor {
        let rows = offsets.count - 1
        let pooled: Tensor
        switch mode {
        case .cls: pooled = states.selecting(Tensor(Array(offsets.dropLast()), device: states.device))
        case .lastToken:
            pooled = states.selecting(Tensor(offsets.dropFirst().map { $0 - 1 }, device: states.device))
        case .mean:
            var shares = [Float](repeating: 0, count: rows * states.dim(0))
            for row in 0..<rows {
                let tokens = offsets[row]..<offsets[row + 1]
                for token in tokens { shares[row * states.dim(0) + token] = 1 / Float(tokens.count) }
            }
            let matrix = Tensor(shares, shape: [rows, states.dim(0)], device: states.device)
            pooled = matrix.to(states.dtype).matmul(states)
        }
        return normalizes ? pooled.normalized() : pooled
    }
}

extension Tensor {
    /// Rows x / max(‖x‖, 10⁻¹²), as PyTorch's `normalize`.
    func normalized() -> Tensor { self / squared().sum(axes: [-1], keep: true).sqrt().atLeast(1e-12) }
}
