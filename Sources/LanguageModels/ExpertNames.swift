import Foundation
import PEFTSupport
import Torch

/// How a family's files name and arrange the experts of a layer. The model has transformers' names since version 5, in which
/// all experts are one tensor; most files have a tensor for each projection of each expert.
struct ExpertNames: Sendable {
    /// Names of an expert's projections in files that have them one by one; `nil` if files have stacked tensors.
    /// Experts without gates have none.
    var separate: (gate: String?, up: String, down: String)?
    /// Whether Hugging Face PEFT renames targets that are an expert's projections.
    var renamesTargets = true
    /// Parts of names in files and in the model.
    var renamed: [(file: String, model: String)] = []

    /// Mixtral's files.
    static let mixtral = ExpertNames(
        separate: ("w1", "w3", "w2"), renamed: [(".block_sparse_moe.", ".mlp.")])
    /// Files with the model's own names.
    static let stacked = ExpertNames()
    /// Granite's files, with stacked tensors of other names.
    static let granite = ExpertNames(renamed: [
        ("block_sparse_moe.input_linear.weight", "block_sparse_moe.experts.gate_up_proj"),
        ("block_sparse_moe.output_linear.weight", "block_sparse_moe.experts.down_proj"),
        ("block_sparse_moe.router.layer.weight", "block_sparse_moe.router.weight"),
    ])
    /// Files of Qwen's and most other families.
    static let qwen = ExpertNames(separate: ("gate_proj", "up_proj", "down_proj"))
    /// The same in a family whose shared network has these names, too: there they are targets as they are.
    static let qwen2 = ExpertNames(separate: ("gate_proj", "up_proj", "down_proj"), renamesTargets: false)
}

extension ExpertNames {
    /// The model's name of the first projections of all experts, and the files' names of its parts.
    private var first: (name: String, parts: [String])? {
        separate.map { names in
            names.gate.map { ("gate_up_proj", [$0, names.up]) } ?? ("up_proj", [names.up])
        }
    }

    /// The model's name of a file's tensor of all experts, or of a tensor beside them.
    private func model(_ name: String) -> String {
        renamed.reduce(name) { $0.replacingOccurrences(of: $1.file, with: $1.model) }
    }

    private func file(_ name: String) -> String {
        renamed.reduce(name) { $0.replacingOccurrences(of: $1.model, with: $1.file) }
    }

    /// A projection of one expert: its layer's prefix (up to `experts`), the expert and the projection.
    private func part(_ name: String) -> (prefix: String, expert: Int, projection: String)? {
        guard separate != nil, name.hasSuffix(".weight") else { return nil }
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count > 4, parts[parts.count - 4] == "experts", let expert = Int(parts[parts.count - 3]),
            expert >= 0
        else { return nil }
        return (parts.dropLast(3).joined(separator: "."), expert, String(parts[parts.count - 2]))
    }

    // MARK: Reading

    /// The tensors of a folder's files under the model's names, with separate experts stacked. Those that don't fit together
    /// keep their names, so that loading reports them.
    func stacked(_ owner: [String: any TensorFile], folder: URL) -> [String: any TensorFile] {
        var result: [String: any TensorFile] = [:]
        var experts: [String: [String: [Int: String]]] = [:]
        for (name, file) in owner {
            let renamed = model(name)
            if let part = part(renamed) {
                experts[part.prefix, default: [:]][part.projection, default: [:]][part.expert] = name
            } else if renamed == name {
                result[name] = file
            } else {
                result[renamed] = StackedTensor(renamed, [[name]], owner, url: folder) ?? file
            }
        }
        for (prefix, projections) in experts {
            for (name, parts) in stacks(prefix, projections) {
                if let stack = StackedTensor(name, parts, owner, url: folder, isStacked: true) {
                    result[name] = stack
                }
            }
            let taken = Set(projections.values.flatMap(\.values))
            guard let separate, let first, result["\(prefix).\(first.name)"] != nil,
                result["\(prefix).down_proj"] != nil,
                Set(projections.keys) == Set(first.parts + [separate.down])
            else {
                for name in taken { result[name] = owner[name] }
                continue
            }
        }
        return result
    }

    /// The model's tensors of a layer's experts, with the files' names of their parts by expert.
    private func stacks(_ prefix: String, _ projections: [String: [Int: String]]) -> [(String, [[String]])] {
        guard let separate, let first else { return [] }
        return [first, ("down_proj", [separate.down])].compactMap {
            name, parts in
            let known = parts.compactMap { projections[$0] }
            let count = known.first?.count ?? 0
            guard known.count == parts.count, count > 0 else { return nil }
            let rows = (0..<count).map { expert in known.compactMap { $0[expert] } }
            return rows.allSatisfy { $0.count == parts.count } ? ("\(prefix).\(name)", rows) : nil
        }
    }

    // MARK: Writing

    /// The model's tensors as files have them.
    func separated(_ tensors: [(String, Tensor)]) -> [(String, Tensor)] {
        tensors.flatMap { name, tensor -> [(String, Tensor)] in
            guard let separate, let first, tensor.shape.count == 3, let dot = name.lastIndex(of: ".") else {
                return [(file(name), tensor)]
            }
            let (prefix, leaf) = (name[..<dot], name[name.index(after: dot)...])
            let parts: [String]
            switch leaf {
            case first.name: parts = first.parts
            case "down_proj": parts = [separate.down]
            default: return [(file(name), tensor)]
            }
            guard prefix.hasSuffix(".experts") else { return [(file(name), tensor)] }
            let rows = tensor.dim(1) / parts.count
            return (0..<tensor.dim(0)).flatMap { expert in
                let own = tensor.narrowed(axis: 0, expert..<expert + 1).reshaped(tensor.dim(1), tensor.dim(2))
                return parts.enumerated().map { index, part in
                    let matrix = own.narrowed(axis: 0, index * rows..<(index + 1) * rows)
                    return (file("\(prefix).\(expert).\(part).weight"), matrix.contiguous())
                }
            }
        }
    }
}

/// One tensor under another name, or tensors of single experts as one.
private final class StackedTensor: TensorFile {
    let url: URL
    let entries: [String: TensorEntry]
    /// The files' tensors by expert, whose rows follow each other.
    private let parts: [[(file: any TensorFile, name: String)]]
    private let isStacked: Bool

    /// - Returns: `nil` if the parts' shapes or dtypes differ.
    init?(
        _ name: String, _ names: [[String]], _ owner: [String: any TensorFile], url: URL, isStacked: Bool = false
    ) {
        parts = names.map { $0.compactMap { name in owner[name].map { ($0, name) } } }
        (self.url, self.isStacked) = (url, isStacked)
        let found = parts.map { $0.compactMap { $0.file.entries[$0.name] } }
        guard let first = found.first?.first else { return nil }
        guard isStacked else {
            entries = [name: first]
            return
        }
        let all = found.flatMap { $0 }
        guard all.count == names.reduce(0, { $0 + $1.count }), first.shape.count == 2,
            all.allSatisfy({ $0.dtype == first.dtype && $0.shape == first.shape })
        else { return nil }
        let shape = [names.count, first.shape[0] * names[0].count, first.shape[1]]
        entries = [
            name: TensorEntry(
                dtype: first.dtype, shape: shape, byteCount: all.reduce(0) { $0 + $1.byteCount })
        ]
    }

    func tensor(_ name: String) throws -> Tensor {
        guard let entry = entries[name], let first = parts.first?.first else {
            throw PEFTError("\(url.path) has no tensor '\(name)'")
        }
        guard isStacked else { return try first.file.tensor(first.name) }
        // One expert at a time is in memory twice.
        let whole = Tensor.empty(entry.shape, dtype: entry.dtype)
        let rows = entry.shape[1] / (parts.first?.count ?? 1)
        try withoutGradients {
            for (expert, list) in parts.enumerated() {
                let own = whole.narrowed(axis: 0, expert..<expert + 1)
                for (index, part) in list.enumerated() {
                    own.narrowed(axis: 1, index * rows..<(index + 1) * rows).copy(
                        from: try part.file.tensor(part.name).unsqueezed(0))
                    part.file.forget(part.name)
                }
            }
        }
        return whole
    }

    func forget(_ name: String) {
        for part in parts.flatMap({ $0 }) { part.file.forget(part.name) }
    }
}
