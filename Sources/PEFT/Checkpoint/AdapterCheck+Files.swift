import LanguageModels
import PEFTSupport
import Torch

/// What an adapter folder alone shows: its values, shapes, patterns and targets.
extension AdapterCheck {
    /// Explains a common cause of shape mismatches: another rank than in the configuration, or another base model.
    mutating func explainShapes(_ problems: [AdapterFolder.Problem]) {
        let shapes = problems.compactMap { problem -> (stored: [Int], needed: [Int])? in
            guard case .misshapen(let key, let stored, let needed) = problem, key.hasSuffix(".lora_A.weight"),
                stored.count == 2, needed.count == 2
            else { return nil }
            return (stored, needed)
        }
        guard !shapes.isEmpty else { return }
        func list(_ sizes: [Int]) -> String { Set(sizes).sorted().map(String.init).joined(separator: ", ") }
        let others = shapes.filter { $0.stored[1] != $0.needed[1] }
        warnings.append(
            others.isEmpty
                ? "the LoRA matrices have rank \(list(shapes.map { $0.stored[0] })), but adapter_config.json says \(list(shapes.map { $0.needed[0] }))"
                : "the LoRA matrices take inputs of size \(list(others.map { $0.stored[1] })), but this model's have size \(list(others.map { $0.needed[1] })): the adapter was trained on another model"
        )
    }

    mutating func inspectValues(_ folder: AdapterFolder) throws {
        var zeros: [String] = []
        for entry in folder.tensors.entries.values { types[entry.dtype.rawValue, default: 0] += 1 }
        if types.count > 1 {
            let list = types.sorted { $0.key < $1.key }.map { "\($0.value) of \($0.key)" }
            warnings.append("the tensors have mixed dtypes: \(list.joined(separator: ", "))")
        }
        for (name, _) in folder.tensorShapes {
            let tensor = try withTorchErrors { try folder.tensor(name).to(.float32) }
            let (finite, largest) = try withTorchErrors {
                (tensor.isFinite().to(.float32).sum().item(), tensor.count > 0 ? tensor.abs().max().item() : 0)
            }
            if Int(finite) != tensor.count {
                problems.append(
                    "the tensor '\(name)' contains \(tensor.count - Int(finite)) NaN or infinite values")
            } else if largest == 0, tensor.count > 0 {
                zeros.append(name)
            }
        }
        if let first = zeros.first {
            warnings.append(
                "\(zeros.count) of \(folder.tensorShapes.count) tensors are all zero, the first is '\(first)'"
                    + (zeros.contains { $0.contains("lora_B") } ? ": a LoRA branch with B = 0 has no effect" : ""))
        }
    }

    /// Warns of `rank_pattern` and `alpha_pattern` entries that match no module, or are shadowed by others.
    mutating func inspectPatterns(_ folder: AdapterFolder, _ plan: [Attachment]) {
        let paths = plan.filter { [.linear, .embedding, .experts].contains($0.site) }.map(\.path)
        for key in ["rank_pattern", "alpha_pattern"] {
            var values: [String: [(pattern: String, value: Double)]] = [:]
            for (pattern, value) in (folder.configuration[key]?.object ?? [:]).sorted(by: { $0.key < $1.key })
            where value.double != nil {
                let matcher = try? TargetSelection.wholeMatch("(.*\\.)?(\(pattern))", option: key)
                let matched = paths.filter { (try? matcher?.matches($0)) ?? false }
                if matched.isEmpty {
                    warnings.append(
                        "the pattern '\(pattern)' in '\(key)' matches no module of this model and has no effect")
                }
                for path in matched { values[path, default: []].append((pattern, value.double ?? 0)) }
            }
            let doubtful = paths.filter { Set((values[$0] ?? []).map(\.value)).count > 1 }
            if let first = doubtful.first, let used = values[first]?.first {
                let others = (values[first] ?? []).dropFirst().map { "'\($0.pattern)'" }.joined(separator: ", ")
                warnings.append(
                    "\(doubtful.count) modules match several patterns in '\(key)': at \(first), '\(used.pattern)' applies and \(others) has no effect"
                )
            }
        }
    }

    /// Warns of targets that match nothing. Hugging Face ignores them as long as another target matches.
    mutating func inspectTargets(_ folder: AdapterFolder, _ outline: ModelOutline) {
        let paths = outline.modules
        for key in ["target_modules", "exclude_modules", "feedforward_modules"] {
            let unused = (folder.configuration[key]?.array ?? []).compactMap(\.string).filter { name in
                !paths.contains { TargetSelection.names(name, $0) }
            }
            guard !unused.isEmpty else { continue }
            warnings.append(
                "\(unused.map { "'\($0)'" }.joined(separator: ", ")) in '\(key)' \(unused.count == 1 ? "matches" : "match") no module of this model"
            )
        }
        let layers = Set(outline.linears.compactMap { ModelOutline.layer(of: $0.path) })
        let chosen = (folder.configuration["layers_to_transform"]?.array ?? []).compactMap(\.int)
        let absent = chosen.filter { !layers.contains($0) }
        if !absent.isEmpty {
            warnings.append(
                "'layers_to_transform' lists layers that the model doesn't have: \(absent.map(String.init).joined(separator: ", "))"
            )
        }
    }
}
