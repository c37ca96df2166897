import Foundation
import LanguageModels
import PEFTSupport
import Torch

extension AdapterConversion {
    /// Converts a loralib state dict (Hu et al. 2021) with `….lora_A` and `….lora_B`, which for fused projections
    /// hold one pair of blocks for each enabled slice, and other trained tensors such as biases and a head.
    ///
    /// - Parameters:
    ///   - alpha: loralib's `lora_alpha`, which its files don't store.
    ///   - enabled: which equal slices of fused projections were adapted (`enable_lora`).
    /// - Returns: an adapter on `model` with the same output as loralib's, and notes for the user.
    /// - Throws: ``PEFTError`` that names a tensor which matches no parameter of the model.
    package static func loralib(_ file: URL, on model: any LanguageModel, alpha: Double, enabled: [Bool]?) throws
        -> (adapter: Adapter, notes: [String])
    {
        let tensors: any TensorFile =
            try file.pathExtension == "safetensors" ? SafetensorsFile(file) : TorchFile(file)
        return try LoralibFile(tensors, on: model).adapter(alpha: alpha, enabled: enabled)
    }
}

private struct LoralibFile {
    private let file: any TensorFile
    private let model: any LanguageModel
    private let outline: ModelOutline

    init(_ file: any TensorFile, on model: any LanguageModel) {
        (self.file, self.model, outline) = (file, model, ModelOutline(model))
    }

    func adapter(alpha: Double, enabled: [Bool]?) throws -> (adapter: Adapter, notes: [String]) {
        let pairs = try pairs(alpha: alpha, enabled: enabled)
        guard let first = pairs.min(by: { $0.key < $1.key }) else {
            throw PEFTError(
                "\(file.url.path) contains no tensors named lora_A", remedy: "pass a loralib state dict")
        }
        let rest = try rest(adapted: Set(pairs.keys))
        let rank = first.value.a.dim(0)
        var configuration = LoRA.Configuration(
            rank: rank, alpha: first.value.scale * Double(rank), targets: pairs.keys.sorted())
        for (path, pair) in pairs where pair.a.dim(0) != rank || pair.scale != first.value.scale {
            let pattern = NSRegularExpression.escapedPattern(for: path)
            configuration.rankPattern[pattern] = Double(pair.a.dim(0))
            configuration.alphaPattern[pattern] = pair.scale * Double(pair.a.dim(0))
        }
        configuration.extras.bias = rest.bias
        configuration.selection.modulesToSave.names = rest.modules
        let adapter = try Adapter(MethodChoice(LoRA.self, configuration), on: model, isLoading: true)
        do {
            try withTorchErrors {
                for (path, _, module) in adapter.attached {
                    guard let update = module as? LoRAAdapter, let pair = pairs[path] else { continue }
                    update.a.copy(from: pair.a)
                    update.b.copy(from: pair.b)
                }
                for own in adapter.trained {
                    if let value = rest.values[own.path] { own.values.copy(from: value) }
                }
            }
            // Every tensor of the file must be in the adapter by now.
            if let lost = rest.values.keys.sorted().first(where: { path in
                !adapter.trained.contains { $0.path == path }
            }) {
                throw PEFTError(
                    "'\(lost)' in \(file.url.path) can't be stored in an adapter",
                    remedy: "merge it into the base model by hand")
            }
        } catch {
            try adapter.deactivate()
            throw error
        }
        return (adapter, rest.notes)
    }

    // MARK: Updates

    private func pairs(alpha: Double, enabled: [Bool]?) throws -> [String: (a: Tensor, b: Tensor, scale: Double)] {
        var pairs: [String: (a: Tensor, b: Tensor, scale: Double)] = [:]
        for name in file.entries.keys.sorted() where name.hasSuffix(".lora_A") || name.hasSuffix(".lora_B") {
            let owner = String(name.dropLast(".lora_A".count))
            guard file.entries[owner + ".lora_A"]?.shape.count == 2, file.entries[owner + ".lora_B"]?.shape.count == 2
            else {
                throw PEFTError(
                    "\(file.url.path) has '\(name)' without a matching lora_\(name.hasSuffix("A") ? "B" : "A")",
                    remedy: "download the file again")
            }
            guard name.hasSuffix("A") else { continue }
            guard let site = site(owner) else {
                let hint = nearestName(to: owner, in: outline.linears.map(\.path)).map { "did you mean '\($0)'?" }
                throw PEFTError("this \(outline.family) model has no projection '\(owner)'", remedy: hint)
            }
            pairs[site.path] = try pair(
                file.tensor(owner + ".lora_A"), file.tensor(owner + ".lora_B"), site: site, alpha: alpha,
                enabled: enabled, name: owner)
        }
        return pairs
    }

    /// Strips the levels that wrappers add before the names.
    private func strip(_ name: String) -> String {
        ["module.", "model."].first { name.hasPrefix($0) }.map { String(name.dropFirst($0.count)) } ?? name
    }

    private func site(_ name: String) -> ModelOutline.LinearSite? {
        let bare = strip(name)
        return outline.linears.first { $0.path == name } ?? outline.linears.first { $0.path == bare }
            ?? outline.linears.first { $0.path.hasSuffix("." + bare) }
    }

    /// A and B over the whole projection, with the scale α / r of loralib's own rank.
    private func pair(
        _ a: Tensor, _ b: Tensor, site: ModelOutline.LinearSite, alpha: Double, enabled: [Bool]?, name: String
    ) throws -> (a: Tensor, b: Tensor, scale: Double) {
        let rank = b.dim(1)
        func misshapen() -> PEFTError {
            PEFTError(
                "'\(name)' has LoRA matrices of shapes \(a.shape) and \(b.shape), but its projection is [\(site.outputs), \(site.inputs)]",
                remedy: "use the model it was trained on, and --enable-lora for fused projections")
        }
        guard a.dim(1) == site.inputs else { throw misshapen() }
        if a.dim(0) == rank, b.dim(0) == site.outputs { return (a, b, alpha / Double(rank)) }
        guard let enabled, enabled.contains(true), site.outputs.isMultiple(of: enabled.count) else {
            throw misshapen()
        }
        let part = site.outputs / enabled.count
        let places = enabled.indices.filter { enabled[$0] }
        guard a.dim(0) == rank * places.count, b.dim(0) == part * places.count else { throw misshapen() }
        return try withTorchErrors {
            withoutGradients {
                let whole = Tensor.zeros([site.outputs, a.dim(0)], dtype: b.dtype)
                for (index, place) in places.enumerated() {
                    whole.narrowed(axis: 0, (place * part)..<((place + 1) * part))
                        .narrowed(axis: 1, (index * rank)..<((index + 1) * rank))
                        .copy(from: b.narrowed(axis: 0, (index * part)..<((index + 1) * part)))
                }
                return (a, whole, alpha / Double(rank))
            }
        }
    }

    // MARK: The rest

    /// Tensors of the file other than LoRA matrices.
    private struct Rest {
        /// Values that differ from the model's, by parameter path.
        var values: [String: Tensor] = [:]
        var bias = BiasTraining.none
        /// Fully trained modules other than those that every adapter trains.
        var modules: [String] = []
        var notes: [String] = []
    }

    private func rest(adapted: Set<String>) throws -> Rest {
        let own = Dictionary(
            model.parameters().map { ($0.path, $0.parameter) }, uniquingKeysWith: { first, _ in first })
        var rest = Rest()
        var (copies, unknown, unused): (Int, [String], [String]) = (0, [], [])
        for name in file.entries.keys.sorted()
        where !name.hasSuffix(".lora_A") && !name.hasSuffix(".lora_B") {
            let bare = strip(name)
            let path =
                [name, bare, model.canonicalName(name), model.canonicalName(bare)].first { own[$0] != nil }
                ?? own.keys.sorted().first { $0.hasSuffix("." + bare) }
            guard let path, let parameter = own[path] else {
                if model.isIgnorable(name) || model.isIgnorable(bare) {
                    unused.append(name)
                } else {
                    unknown.append(name)
                }
                continue
            }
            let value = try withTorchErrors { try file.tensor(name) }
            guard value.shape == parameter.tensor.shape, value.dtype.isFloatingPoint else {
                throw PEFTError(
                    "'\(name)' in \(file.url.path) has shape \(value.shape), but this model's '\(path)' has \(parameter.tensor.shape)",
                    remedy: "use the model that it was trained on, with the same number of labels")
            }
            if value.to(parameter.tensor.dtype).isIdentical(to: parameter.tensor.detached()) {
                copies += 1
            } else {
                rest.values[path] = value
            }
        }
        if let first = unknown.first {
            throw PEFTError(
                "\(file.url.path) contains \(unknown.count) tensors that match no parameter of this \(outline.family) model; the first is '\(first)'",
                remedy: nearestName(to: first, in: Array(own.keys)).map { "did you mean '\($0)'?" }
                    ?? "use the model and the task that it was trained on")
        }
        try divide(&rest, adapted: adapted)
        if let first = unused.first {
            rest.notes.append(
                "\(unused.count) tensors that this model doesn't use were skipped; the first is '\(first)'")
        }
        if copies > 0 {
            rest.notes.append("\(copies) tensors are identical to the base model's and were skipped")
        }
        return rest
    }

    /// Decides how each value is trained: as a bias, with its module, or as the classification head.
    private func divide(_ rest: inout Rest, adapted: Set<String>) throws {
        func owner(_ path: String) -> String { path.split(separator: ".").dropLast().joined(separator: ".") }
        let others = rest.values.keys.sorted().filter { path in
            !outline.newModules.contains { path.hasPrefix($0 + ".") }
        }
        let weights = others.filter { !$0.hasSuffix(".bias") }
        if let changed = weights.first(where: { adapted.contains(owner($0)) }) {
            throw PEFTError(
                "\(file.url.path) contains a '\(changed)' that differs from the base model's, beneath its LoRA branch",
                remedy: "use the model that it was trained on")
        }
        rest.modules = Set(weights.map(owner)).sorted()
        let biases = others.filter { $0.hasSuffix(".bias") && !rest.modules.contains(owner($0)) }
        if !biases.isEmpty { rest.bias = biases.allSatisfy { adapted.contains(owner($0)) } ? .adapted : .all }
        let heads = rest.values.keys.filter { path in outline.newModules.contains { path.hasPrefix($0 + ".") } }
        if !heads.isEmpty { rest.notes.append("the trained head is included (\(heads.count) tensors)") }
        if !rest.modules.isEmpty {
            rest.notes.append("\(rest.modules.joined(separator: ", ")) are included as modules_to_save")
        }
    }
}
