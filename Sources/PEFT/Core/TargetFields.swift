import LanguageModels
import PEFTSupport

extension MethodConfiguration {
    /// The fields that select target modules, with Hugging Face's names and meanings; shared by all methods that
    /// target modules by name.
    public static func targetFields(
        _ selection: WritableKeyPath<Self, TargetSelection> & Sendable,
        help: String = "target modules, comma-separated, or all-linear (default: attention query and value)"
    ) -> [ConfigurationField<Self>] {
        [
            .init("targets", key: "target_modules", .names, help: help) {
                let selection = $0[keyPath: selection]
                return selection.isPattern || selection.targets == ["all-linear"]
                    ? .string(selection.targets.first ?? "")
                    : .array(selection.targets.sorted().map { .string($0) })
            } write: { configuration, value in
                if let pattern = value.string {
                    configuration[keyPath: selection].targets = [pattern]
                    configuration[keyPath: selection].isPattern = pattern != "all-linear"
                } else {
                    configuration[keyPath: selection].targets = try names(value)
                    configuration[keyPath: selection].isPattern = false
                }
            },
            .init("exclude", key: "exclude_modules", .names, help: "modules to exclude from the targets") {
                let selection = $0[keyPath: selection]
                if selection.isExcludedPattern { return .string(selection.excluded.first ?? "") }
                return selection.excluded.isEmpty ? .null : .array(selection.excluded.sorted().map { .string($0) })
            } write: {
                $0[keyPath: selection].excluded = try $1.string.map { [$0] } ?? names($1)
                $0[keyPath: selection].isExcludedPattern = $1.string != nil
            },
            modulesToSaveField(selection),
        ]
    }

    /// The fields that restrict targets to some layers.
    public static func layerFields(_ selection: WritableKeyPath<Self, TargetSelection> & Sendable)
        -> [ConfigurationField<Self>]
    {
        [
            .init(
                "layers", key: "layers_to_transform", .integers,
                help: "layer indices to adapt, such as 0-3,7 (default: all)"
            ) {
                $0[keyPath: selection].layers.map { .array($0.map { .integer($0) }) } ?? .null
            } write: {
                $0[keyPath: selection].layers = try $1.int.map { [$0] } ?? integers($1)
            },
            .init(
                "layers-pattern", key: "layers_pattern", .names,
                help: "name of the module list that contains the layers"
            ) {
                let names = $0[keyPath: selection].layersPattern
                return names.isEmpty ? .null : .array(names.map { .string($0) })
            } write: {
                // An empty name means none.
                $0[keyPath: selection].layersPattern = try ($1.string.map { [$0] } ?? names($1)).filter {
                    !$0.isEmpty
                }
            },
        ]
    }
}

extension TargetSelection {
    /// The selection with default targets filled in if none were given.
    /// - Parameter targets: the method's defaults in the model's family.
    func resolved(for model: ModelOutline, defaults targets: KeyPath<AdapterTargets, DefaultTargets> = \.lora)
        -> TargetSelection
    {
        var selection = self
        if selection.targets.isEmpty {
            // Models of a family differ: T5's feed-forward network has one input projection or two.
            let known = model.modelFamily.adapterTargets[keyPath: targets].names.filter { name in
                model.linears.contains { TargetSelection.names(name, $0.path) }
            }
            selection.targets = known.isEmpty ? ["all-linear"] : known
        }
        // Hugging Face accepts layer restrictions only with a list of names, and mistakes a token-classification head
        // for one of the all-linear targets, which it then can't save.
        let isSpelledOut = !(selection.layers ?? []).isEmpty || model.head.task == .tokenClassification
        if selection.targets == ["all-linear"], isSpelledOut {
            selection.targets = Self.leaves(model.linears.map(\.path).filter { $0 != model.outputLayer })
        }
        return selection
    }

    /// Short description of the targets for reports.
    var label: String {
        switch targets {
        case []: "default targets"
        case ["all-linear"]: "all linears"
        default: targets.joined(separator: ", ")
        }
    }

    /// Rejects combinations that Hugging Face rejects in files.
    func validate() throws {
        let hasLayers = !(layers ?? []).isEmpty
        if isPattern, hasLayers || !layersPattern.isEmpty {
            throw PEFTError(
                "--layers can't be combined with a regular expression in --targets",
                remedy: "match the layers in the expression, or list the targets by name")
        }
        if !hasLayers, !layersPattern.isEmpty {
            throw PEFTError("--layers-pattern has no effect without --layers", remedy: "pass --layers too")
        }
    }
}
