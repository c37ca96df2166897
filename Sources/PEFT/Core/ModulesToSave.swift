import PEFTSupport

/// Modules of the model that are trained in full alongside an adapter, such as an output layer: Hugging Face's
/// `modules_to_save`. Part of `targetFields`; ``MethodChoice`` adds them to a method's plan.
public struct ModulesToSave: Sendable, Equatable {
    /// Suffixes of the modules' paths.
    public var names: [String]
    /// Whether an output layer tied to the embedding is trained as one matrix with it (`ensure_weight_tying`).
    package var tiesEmbeddings = false

    /// - Parameters:
    ///   - names: names of modules that are trained and saved beside the adapter.
    ///   - tiesEmbeddings: whether embedding and output layer share one copy.
    public init(_ names: [String] = [], tiesEmbeddings: Bool = false) {
        (self.names, self.tiesEmbeddings) = (names, tiesEmbeddings)
    }

    /// Hugging Face lists both for every sequence classifier, whichever of them exists.
    private static let classifiers: Set = ["classifier", "score"]

    /// Whether a module, or one that contains it, is selected.
    package func covers(_ path: String) -> Bool { names.contains { Self.covers($0, path) } }

    private static func covers(_ name: String, _ path: String) -> Bool {
        guard !name.isEmpty else { return false }
        var end = path.endIndex
        while true {
            // Compares plain suffixes as Hugging Face does: `classifier` also matches `pre_classifier`.
            if path[..<end].hasSuffix(name) { return true }
            guard let dot = path[..<end].lastIndex(of: ".") else { return false }
            end = dot
        }
    }

    /// The modules to train, except those that the plan trains already.
    /// - Throws: ``PEFTError`` if a name matches nothing, or an embedding that other modules share.
    func attachments(for model: ModelOutline, beside plan: [Attachment]) throws -> [Attachment] {
        var saved = self
        var copies: [String] = []
        if tiesEmbeddings, model.isTied, covers(model.outputLayer) || covers(model.inputEmbedding) {
            // One matrix is trained for both uses; files contain it under both names.
            saved.names = names.filter { !Self.covers($0, model.outputLayer) } + [model.inputEmbedding]
            copies = ["\(AdapterKeys.prefix)\(model.outputLayer).weight"]
        }
        for name in saved.names where !Self.classifiers.contains(name) {
            guard !model.parameters.contains(where: { Self.covers(name, $0.owner) }) else { continue }
            let owners = TargetSelection.leaves(model.parameters.map(\.owner))
            let hint = nearestName(to: name, in: owners).map { "did you mean '\($0)'? " } ?? ""
            throw PEFTError(
                "modules_to_save '\(name)' matches no module of this \(model.family) model",
                remedy: hint + "available modules are \(owners.joined(separator: ", "))")
        }
        let trained = Set(plan.filter { $0.site == .parameter }.map(\.path))
        return try model.parameters.filter { saved.covers($0.owner) && !trained.contains($0.path) }.map { parameter in
            let isTable = parameter.owner == model.inputEmbedding
            if let table = model.embeddings.first(where: { $0.path == parameter.owner }),
                !model.views(of: table).isEmpty || model.isTied && isTable && copies.isEmpty
            {
                // Hugging Face would train a copy that only one of the modules uses.
                throw PEFTError(
                    "'\(table.path)' can't be trained in full: several modules share its matrix",
                    remedy: "train only some tokens (--trainable-tokens), or the whole model")
            }
            return .train(parameter.path, shape: parameter.shape, copies: isTable ? copies : [])
        }
    }
}

extension MethodConfiguration {
    /// The `modules_to_save` field, with Hugging Face's name and meaning.
    static func modulesToSaveField(_ selection: WritableKeyPath<Self, TargetSelection> & Sendable)
        -> ConfigurationField<Self>
    {
        .init(
            "modules-to-save", key: "modules_to_save", .names, help: "modules to train in full alongside the adapter"
        ) {
            let names = $0[keyPath: selection].modulesToSave.names
            return names.isEmpty ? .null : .array(names.map { .string($0) })
        } write: {
            $0[keyPath: selection].modulesToSave.names = try names($1)
        }
    }

    /// The value of the configuration's `modules_to_save` field, if it has one.
    var modulesToSave: ModulesToSave {
        let json = json
        return ModulesToSave(
            (json["modules_to_save"]?.array ?? []).compactMap(\.string),
            tiesEmbeddings: MethodChoice.tying(json).saved)
    }
}
