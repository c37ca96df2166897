import Foundation
import PEFTSupport
import Torch

/// LoRA of experts as Hugging Face PEFT wrote it with `transformers` before version 5, when each expert had projections of its
/// own, such as `experts.3.gate_proj`: read as LoRA of the matrices of all experts (``ExpertLoRA``).
///
/// Gate and up projections become one, with A = [A_gate; A_up] and B = diag(B_gate, B_up), of twice the rank and α.
struct SeparateExperts {
    /// Names of an expert's projections in files of different families.
    private static let styles: [(gate: String, up: String, down: String)] = [
        ("w1", "w3", "w2"), ("gate_proj", "up_proj", "down_proj"),
    ]

    /// The experts of one layer: names of A and B in the file by projection and expert.
    private struct Layer {
        var factors: [String: [Int: (a: String?, b: String?)]] = [:]
    }

    /// The file with the tensors of all experts in place of those of each.
    let file: any TensorFile
    /// Names of the projections that have factors.
    private let projections: Set<String>
    private let style: (gate: String, up: String, down: String)
    /// Paths of the other modules with factors, and of the experts' projections.
    private let modules: [String]
    private let expertPaths: [String]

    /// The experts of an adapter folder.
    /// - Returns: `nil` if it isn't LoRA, or has no tensors of single experts.
    init?(_ folder: URL, _ configuration: [String: JSON]) throws {
        let type = configuration["peft_type"]?.string ?? LoRA.peftType
        guard type == LoRA.peftType, let file = try? AdapterFiles.weights(in: folder) else { return nil }
        try self.init(AdapterNames.renamed(file))
    }

    /// - Returns: `nil` if the file has no tensors of single experts.
    /// - Throws: ``PEFTError`` if some of them are missing or their shapes differ.
    init?(_ file: any TensorFile) throws {
        var layers: [String: Layer] = [:]
        var modules: Set<String> = []
        var taken: Set<String> = []
        var expertPaths: Set<String> = []
        for name in file.entries.keys {
            guard let end = [".lora_A.weight", ".lora_B.weight"].first(where: name.hasSuffix) else { continue }
            let path = name.dropLast(end.count)
            let parts = path.split(separator: ".", omittingEmptySubsequences: false)
            guard parts.count > 3, parts[parts.count - 3] == "experts", let expert = Int(parts[parts.count - 2]),
                expert >= 0, let projection = parts.last.map(String.init),
                Self.styles.contains(where: { [$0.gate, $0.up, $0.down].contains(projection) })
            else {
                modules.insert(Self.modelName(String(path)))
                continue
            }
            let prefix = Self.modelName(parts.dropLast(2).joined(separator: "."))
            var entry = layers[prefix, default: Layer()].factors[projection, default: [:]][expert] ?? (nil, nil)
            if end == ".lora_A.weight" { entry.a = name } else { entry.b = name }
            layers[prefix, default: Layer()].factors[projection, default: [:]][expert] = entry
            taken.insert(name)
            expertPaths.insert(String(path))
        }
        guard let first = layers.values.first,
            let style = Self.styles.first(where: { style in
                first.factors.keys.allSatisfy { [style.gate, style.up, style.down].contains($0) }
            })
        else {
            return nil
        }
        var stacks: [String: StackedFactors.Part] = [:]
        for (prefix, layer) in layers.sorted(by: { $0.key < $1.key }) {
            let fused = try Self.stack([style.gate, style.up], layer.factors, prefix, file)
            let down = try Self.stack([style.down], layer.factors, prefix, file)
            // PEFT wraps the experts once for each tensor: the last is outermost.
            for (stack, level) in [(fused, down == nil ? "" : "base_layer."), (down, "")] {
                guard let stack else { continue }
                stacks["\(prefix).\(level)lora_A.weight"] = .init(names: stack.map { $0.map(\.a) }, isA: true)
                stacks["\(prefix).\(level)lora_B.weight"] = .init(names: stack.map { $0.map(\.b) }, isA: false)
            }
        }
        self.style = style
        self.file = try StackedFactors(file, stacks, without: taken, renaming: Self.modelName)
        projections = Set(layers.values.flatMap(\.factors.keys))
        self.modules = modules.map(Self.withoutPrefix).sorted()
        self.expertPaths = expertPaths.map(Self.withoutPrefix).sorted()
    }

    /// Mixtral's sublayer had another name.
    private static func modelName(_ name: String) -> String {
        name.replacingOccurrences(of: ".block_sparse_moe.", with: ".mlp.")
    }

    private static func withoutPrefix(_ path: String) -> String {
        path.hasPrefix(AdapterKeys.prefix) ? String(path.dropFirst(AdapterKeys.prefix.count)) : path
    }

    /// The names of A and B of projections that are one tensor in the model, by expert; `nil` if there are none.
    private static func stack(
        _ projections: [String], _ factors: [String: [Int: (a: String?, b: String?)]], _ prefix: String,
        _ file: any TensorFile
    ) throws -> [[(a: String, b: String)]]? {
        let known = projections.filter { factors[$0] != nil }
        guard !known.isEmpty else { return nil }
        let count = (known.compactMap { factors[$0]?.keys.max() }.max() ?? 0) + 1
        // A number from a file bounds nothing until all experts are found.
        let found = known.reduce(0) { $0 + (factors[$1]?.count ?? 0) }
        guard count <= found else { throw missing("\(prefix).\(found / known.count)", projections[0], file) }
        return try (0..<count).map { expert in
            try projections.map { projection in
                guard let entry = factors[projection]?[expert], let a = entry.a, let b = entry.b else {
                    throw missing("\(prefix).\(expert)", projection, file)
                }
                return (a, b)
            }
        }
    }

    private static func missing(_ expert: String, _ projection: String, _ file: any TensorFile) -> PEFTError {
        PEFTError(
            "\(file.url.path) adapts projections of single experts, but not '\(expert).\(projection)'",
            remedy: "all experts of a layer, and gate and up projections together, are adapted or none")
    }

    // MARK: Configuration

    /// Names the matrices of all experts as `target_parameters`, in place of targets that are projections of experts.
    func convert(_ configuration: inout [String: JSON]) throws {
        var parameters = Set((configuration["target_parameters"]?.array ?? []).compactMap(\.string))
        if projections.contains(style.gate) { parameters.insert("experts.gate_up_proj") }
        if projections.contains(style.down) { parameters.insert("experts.down_proj") }
        var targets = modules
        if let list = configuration["target_modules"]?.array?.compactMap(\.string) {
            targets = list.filter { target in modules.contains { TargetSelection.names(target, $0) } }
        }
        // A router is a tensor of its own, too.
        let routers = targets.filter { $0 == "gate" || $0.hasSuffix(".gate") }
        targets.removeAll(where: routers.contains)
        parameters.formUnion(routers.map { $0 + ".weight" })
        configuration["target_parameters"] = .array(parameters.sorted().map(JSON.string))
        configuration["target_modules"] = .array(targets.sorted().map(JSON.string))
        for key in ["rank_pattern", "alpha_pattern"] {
            let patterns = (configuration[key]?.object ?? [:]).compactMapValues(\.double)
            if let path = try expertPaths.first(where: { try TargetSelection.value(for: $0, in: patterns) != nil }) {
                throw PEFTError(
                    "\(file.url.path) has a '\(key)' that names '\(path)', a projection of a single expert",
                    remedy: "merge the adapter in the program that wrote it")
            }
        }
        if projections.contains(style.gate) {
            let (rank, alpha) = (configuration["r"]?.double ?? 8, configuration["lora_alpha"]?.double ?? 8)
            // s = α / √r stays the same with √2 times α.
            let factor = configuration["use_rslora"] == true ? 2.0.squareRoot() : 2
            for (key, value) in [("rank_pattern", 2 * rank), ("alpha_pattern", factor * alpha)] {
                var patterns = configuration[key]?.object ?? [:]
                patterns[#".*\.gate_up_proj"#] = .wholeOr(value)
                configuration[key] = .object(patterns)
            }
        }
        guard let dropout = configuration["lora_dropout"]?.double, dropout > 0 else { return }
        configuration["lora_dropout"] = 0
        configuration[Self.dropoutKey] = .number(dropout)
    }

    /// The dropout that a converted file had.
    private static let dropoutKey = "swift_peft_former_dropout"

    /// A note for the user on a converted configuration.
    static func note(on configuration: [String: JSON]) -> String? {
        configuration[dropoutKey]?.double.map {
            "'lora_dropout' is \($0), which LoRA of experts doesn't have; the output is the same, and training goes on without"
        }
    }
}

/// A file in which factors of single experts are one tensor.
private final class StackedFactors: TensorFile {
    struct Part {
        /// Names in the file by expert and projection.
        let names: [[String]]
        let isA: Bool
    }

    let entries: [String: TensorEntry]
    var url: URL { file.url }
    private let file: any TensorFile
    private let parts: [String: Part]
    private let original: [String: String]

    /// - Parameters:
    ///   - taken: names of tensors that are parts.
    ///   - renaming: the new name of another tensor.
    init(
        _ file: any TensorFile, _ parts: [String: Part], without taken: Set<String>,
        renaming: (String) -> String
    ) throws {
        (self.file, self.parts) = (file, parts)
        var (entries, original) = ([String: TensorEntry](), [String: String]())
        for (name, entry) in file.entries where !taken.contains(name) {
            entries[renaming(name)] = entry
            original[renaming(name)] = name
        }
        for (name, part) in parts {
            let all = part.names.joined().compactMap { file.entries[$0] }
            guard let first = all.first, first.shape.count == 2,
                all.allSatisfy({ $0.shape == first.shape && $0.dtype == first.dtype })
            else {
                throw PEFTError(
                    "\(file.url.path) has factors of different shapes for the experts of '\(name)'",
                    remedy: "merge the adapter in the program that wrote it")
            }
            let (experts, count) = (part.names.count, part.names[0].count)
            let (rows, columns) = (first.shape[0], first.shape[1])
            entries[name] = TensorEntry(
                dtype: first.dtype,
                shape: part.isA ? [experts * count * rows, columns] : [count * rows, count * columns * experts],
                byteCount: all.reduce(0) { $0 + $1.byteCount } * (part.isA ? 1 : count))
        }
        (self.entries, self.original) = (entries, original)
    }

    func tensor(_ name: String) throws -> Tensor {
        guard let part = parts[name] else { return try file.tensor(original[name] ?? name) }
        let matrices = try part.names.map { try $0.map { try file.tensor($0) } }
        // A: the projections' rows below each other, expert by expert.
        guard !part.isA else { return .concatenated(matrices.flatMap { $0 }, axis: 0) }
        // B_e as diagonal blocks `[outputs, rank]`, whose columns alternate between experts.
        let blocks = matrices.map { list in
            Tensor.concatenated(
                list.indices.map { row in
                    Tensor.concatenated(
                        list.indices.map { column in
                            row == column ? list[row] : .zeros(list[column].shape, dtype: list[column].dtype)
                        }, axis: 1)
                }, axis: 0
            ).unsqueezed(0)
        }
        let all = Tensor.concatenated(blocks, axis: 0).permuted(1, 2, 0)
        return all.contiguous().reshaped(all.dim(0), all.dim(1) * all.dim(2))
    }

    func forget(_ name: String) {
        guard let part = parts[name] else { return file.forget(original[name] ?? name) }
        for name in part.names.joined() { file.forget(name) }
    }
}
