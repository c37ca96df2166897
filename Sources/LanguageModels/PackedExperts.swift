import Foundation
import PEFTSupport
import Torch

/// Experts in GPTQ's and AWQ's files, which have several tensors for each projection of each expert, such as
/// `experts.3.up_proj.qweight`; in the model, those of all experts are one.
extension ExpertNames {
    /// How the tensors of an expert's projections that are one matrix in the model become one: along this axis, or not at all
    /// because they are the same.
    private static let axes: [Substring: Int?] = ["qweight": 1, "qzeros": 1, "scales": 1, "g_idx": nil]

    /// The model's projections of all experts, and the files' names of their parts.
    private var stacks: [(name: String, parts: [String])] {
        guard let separate else { return [] }
        let first: [String?] = [separate.gate, separate.up]
        let parts = first.compactMap { $0 }
        return [(parts.count == 1 ? "up_proj" : "gate_up_proj", parts), ("down_proj", [separate.down])]
    }

    /// The files' tensors with the packed ones of single experts stacked, under the model's names. Those that don't fit
    /// together keep their names, so that loading reports them.
    func packed(_ owner: [String: any TensorFile], folder: URL) -> [String: any TensorFile] {
        struct Place: Hashable { let prefix, projection, tensor: String }
        var experts: [Place: [Int: String]] = [:]
        for name in owner.keys {
            let known = renamed.reduce(name) { $0.replacingOccurrences(of: $1.file, with: $1.model) }
            let parts = known.split(separator: ".", omittingEmptySubsequences: false)
            guard parts.count > 4, let tensor = parts.last, Self.axes[tensor] != nil,
                parts[parts.count - 4] == "experts", let expert = Int(parts[parts.count - 3]), expert >= 0
            else { continue }
            let place = Place(
                prefix: parts.dropLast(3).joined(separator: "."), projection: String(parts[parts.count - 2]),
                tensor: String(tensor))
            experts[place, default: [:]][expert] = name
        }
        var result = owner
        for place in experts.keys {
            guard let stack = stacks.first(where: { $0.parts.first == place.projection }),
                let axis = Self.axes[place.tensor[...]]
            else { continue }
            let all = stack.parts.map {
                experts[Place(prefix: place.prefix, projection: $0, tensor: place.tensor)] ?? [:]
            }
            let count = all[0].count
            let names = (0..<count).map { expert in all.compactMap { $0[expert] } }
            let name = "\(place.prefix).\(stack.name).\(place.tensor)"
            guard all.allSatisfy({ $0.count == count }), names.allSatisfy({ $0.count == all.count }),
                let file = PackedStack(name, names, axis: axis, owner, url: folder)
            else { continue }
            for part in names.joined() { result[part] = nil }
            result[name] = file
        }
        return result
    }

    /// The model's tensors with packed ones of experts as files have them.
    func unpacked(_ tensors: [(String, Tensor)]) -> [(String, Tensor)] {
        tensors.flatMap { name, tensor -> [(String, Tensor)] in
            let path = name.split(separator: ".", omittingEmptySubsequences: false)
            guard path.count > 3, path[path.count - 3] == "experts", let axis = Self.axes[path[path.count - 1]],
                let stack = stacks.first(where: { $0.name == path[path.count - 2] })
            else { return [(name, tensor)] }
            let prefix = renamed.reduce(path.dropLast(2).joined(separator: ".")) {
                $0.replacingOccurrences(of: $1.model, with: $1.file)
            }
            return (0..<tensor.dim(0)).flatMap { expert -> [(String, Tensor)] in
                let own = tensor.narrowed(axis: 0, expert..<expert + 1).reshaped(Array(tensor.shape.dropFirst()))
                return stack.parts.enumerated().map { index, part in
                    var matrix = own
                    if let axis {
                        let size = own.dim(axis) / stack.parts.count
                        matrix = own.narrowed(axis: axis, index * size..<(index + 1) * size)
                    }
                    return ("\(prefix).\(expert).\(part).\(path[path.count - 1])", matrix.contiguous())
                }
            }
        }
    }
}

/// Packed tensors of single experts as one.
private final class PackedStack: TensorFile {
    let url: URL
    let entries: [String: TensorEntry]
    /// The files' tensors by expert.
    private let parts: [[(file: any TensorFile, name: String)]]
    /// The axis of an expert's tensor along which its projections follow each other; `nil` if theirs are the same.
    private let axis: Int?

    /// - Returns: `nil` if the parts' shapes or dtypes differ.
    init?(_ name: String, _ names: [[String]], axis: Int?, _ owner: [String: any TensorFile], url: URL) {
        parts = names.map { $0.compactMap { name in owner[name].map { ($0, name) } } }
        (self.url, self.axis) = (url, axis)
        let all = parts.flatMap { $0.compactMap { $0.file.entries[$0.name] } }
        guard let first = all.first, all.count == names.reduce(0, { $0 + $1.count }),
            first.shape.count == (axis == nil ? 1 : 2),
            all.allSatisfy({ $0.dtype == first.dtype && $0.shape == first.shape })
        else { return nil }
        var shape = first.shape
        if let axis { shape[axis] *= names[0].count }
        let bytes = all.reduce(0) { $0 + $1.byteCount } / (axis == nil ? names[0].count : 1)
        entries = [name: TensorEntry(dtype: first.dtype, shape: [names.count] + shape, byteCount: bytes)]
    }

    func tensor(_ name: String) throws -> Tensor {
        guard let entry = entries[name] else { throw PEFTError("\(url.path) has no tensor '\(name)'") }
        // One expert at a time is in memory twice.
        let whole = Tensor.empty(entry.shape, dtype: entry.dtype)
        try withoutGradients {
            for (expert, list) in parts.enumerated() {
                let own = whole.narrowed(axis: 0, expert..<expert + 1)
                for (index, part) in list.enumerated() {
                    let tensor = try part.file.tensor(part.name).unsqueezed(0)
                    if let axis {
                        let size = entry.shape[axis + 1] / list.count
                        own.narrowed(axis: axis + 1, index * size..<(index + 1) * size).copy(from: tensor)
                    } else if index == 0 {
                        own.copy(from: tensor)
                    } else if !tensor.isIdentical(to: own) {
                        throw PEFTError(
                            "'\(part.name)' differs from '\(list[0].name)', but both projections of an expert are one matrix here",
                            remedy: "quantize the model without desc_act")
                    }
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
