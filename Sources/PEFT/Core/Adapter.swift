import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Torch
import TorchNN

/// A PEFT method attached to a model: its tensors, and how to activate, merge and detach them.
public final class Adapter {
    /// The adapter's name, `default` if it has none.
    public let name: String
    /// The method and its options.
    public let choice: MethodChoice
    /// The adapted model.
    public let model: any LanguageModel
    /// Seed of the initial values.
    package let seed: UInt64
    /// Whether the values come from a file, so no initialization may overwrite them.
    package let isFromFile: Bool
    /// The method's modules with the paths of the sites that they adapt, in the model's order.
    public var modules: [(path: String, module: any AdapterModule)] { attached.map { ($0.path, $0.adapter) } }
    /// The adapted sites with their adapter modules, in the model's order.
    package private(set) var attached: [(path: String, site: any AdapterSite, adapter: any AdapterModule)] = []
    /// The method's added tensors, each once, by their name in the adapter file.
    package private(set) var added: [(key: String, parameter: AdapterParameter)] = []
    /// The model's own tensors that the method trains.
    package private(set) var trained: [TrainedTensor] = []
    private(set) var siteKinds: [Attachment.Site] = []
    /// Whether the model uses it.
    public private(set) var isActive = false
    /// Vocabulary matrices that replace the base's, and an untied output layer.
    let vocabulary: VocabularyMatrices?
    /// The matrices of a base that was enlarged for this adapter, which its file contains too.
    package var enlargedVocabulary: EnlargedVocabulary?
    private var merged: [MergedTensor] = []
    /// Whether it is merged into the model's weights.
    public private(set) var isMerged = false
    /// The layers that it stacks in place of the model's.
    let layers: ReplicatedLayers?
    /// Whether the model has more or fewer layers while it is active.
    package var stacksLayers: Bool { layers != nil }
    /// Why the server can't load it; `nil` if it can.
    package var servingObstacle: PEFTError? {
        // The memory of a sequence is reserved for the base's layers.
        guard stacksLayers else { return nil }
        return PEFTError(
            "the adapter stacks the layers anew (layer_replication), which the server doesn't support",
            remedy: "run it with peft generate")
    }

    /// One of the model's own tensors. While the adapter is active the parameter holds the adapter's values,
    /// otherwise the model's.
    package struct TrainedTensor {
        package let path: String
        /// Name in the adapter file.
        package let key: String
        /// Further names in the file, of modules that share the tensor.
        let copies: [String]
        /// The model's parameter.
        package let parameter: Parameter
        /// The adapter's values, which training updates.
        package internal(set) var values: Tensor
        /// The original values; `nil` if they weren't saved.
        let base: Tensor?
    }

    /// What merging changes at one site.
    private enum MergedTensor {
        case linear(Linear, adapter: Module, MergedLinear)
        case embedding(Embedding, adapter: Module, before: any LinearWeight, after: any LinearWeight)
        case experts(ExpertLinear, adapter: Module, before: any ExpertWeight, after: any ExpertWeight)

        /// Whether no other adapter was merged, or replaced the weight, since.
        var isOnTop: Bool {
            switch self {
            case .linear(let linear, _, let change):
                Self.isOnTop(linear.weight, change.after)
                    && change.bias.map { linear.bias?.tensor === $0.after } ?? true
            case .embedding(let table, _, _, let after): Self.isOnTop(table.weight, after)
            case .experts(let site, _, _, let after): Self.isOnTop(site.weight.parameters, after.parameters)
            }
        }

        private static func isOnTop(_ weight: any LinearWeight, _ merged: any LinearWeight) -> Bool {
            isOnTop(weight.parameters, merged.parameters)
        }

        private static func isOnTop(
            _ own: [(key: String, parameter: Parameter)], _ merged: [(key: String, parameter: Parameter)]
        ) -> Bool {
            own.elementsEqual(merged) { $0.parameter === $1.parameter }
                && !own.contains { $0.parameter.isCovered }
        }
    }

    private struct MergedLinear {
        let before: any LinearWeight
        let after: any LinearWeight
        /// The bias, if merging changes it.
        let bias: (before: Tensor, after: Tensor)?
    }

    /// Attaches a method to a model, on top of its active adapters. The base is frozen except for what the method
    /// trains; other adapters stay trainable or frozen (``setTrainable(_:)``).
    ///
    /// - Parameters:
    ///   - choice: the method with its configuration.
    ///   - model: the base model.
    ///   - name: the adapter's name, `default` as in Hugging Face PEFT.
    ///   - seed: seed of the initial values.
    ///   - tokenizer: tokenizer for prompts initialized from a text.
    ///   - isLoading: whether values are loaded from a file next.
    /// - Throws: ``PEFTError`` if the plan doesn't fit the model, which is then unchanged.
    public convenience init(
        _ choice: MethodChoice, on model: any LanguageModel, name: String = "default", seed: UInt64 = 0,
        tokenizer: Tokenizer? = nil, isLoading: Bool = false
    ) throws {
        try self.init(
            choice, on: model, name: name, seed: seed, tokenizer: tokenizer, isLoading: isLoading, vocabulary: nil)
    }

    /// - Parameter vocabulary: matrices that already replace the model's own and belong to the adapter.
    init(
        _ choice: MethodChoice, on model: any LanguageModel, name: String = "default", seed: UInt64 = 0,
        tokenizer: Tokenizer? = nil, isLoading: Bool = false, vocabulary: VocabularyMatrices?
    ) throws {
        let outline = ModelOutline(model)
        (self.choice, self.model, self.name) = (choice.resolved(for: outline), model, name)
        (self.seed, isFromFile) = (seed, isLoading)
        let plan = try self.choice.plan(for: outline)
        layers = try self.choice.replication.map { try ReplicatedLayers($0, on: model) }
        let separates = self.choice.separatesOutputLayer(of: outline)
        self.vocabulary = vocabulary ?? (separates ? VocabularyMatrices(on: model) : nil)
        if separates {
            try model.vocabularyTable?.part?.gather()
            self.vocabulary?.separateOutput()
            self.vocabulary?.put()
        }
        layers?.put()
        do { try attach(plan, tokenizer: tokenizer, isLoading: isLoading) } catch {
            layers?.remove()
            self.vocabulary?.remove()
            throw PartitionedSites.naming(self.choice.label, in: error)
        }
        activate()
        setTrainable(true)
    }

    /// Creates the planned tensors and modules without activating them.
    private func attach(_ plan: [Attachment], tokenizer: Tokenizer?, isLoading: Bool) throws {
        let modules = Dictionary(model.namedModules().map { ($0.path, $0.module) }, uniquingKeysWith: { $1 })
        let parameters = Dictionary(model.parameters().map { ($0.path, $0.parameter) }, uniquingKeysWith: { $1 })
        // All targets are found before the first change.
        let targets = try plan.map { try $0.target(modules: modules, parameters: parameters) }
        let context = AttachmentContext(model: model, tokenizer: tokenizer, seed: seed, isLoading: isLoading)
        let parts = PartitionedSites(model)
        var seen: Set<String> = []
        try withTorchErrors {
            for (attachment, target) in zip(plan, targets) {
                let part = try parts.gather(attachment.path)
                switch target {
                case .parameter(let parameter):
                    try parts.check(parameter, attachment)
                    guard attachment.keepsBase || !parameter.isCovered else {
                        throw PEFTError(
                            "another active adapter replaces the model's '\(attachment.path)'",
                            remedy: "deactivate that adapter before training the model itself")
                    }
                    let base = attachment.keepsBase ? parameter.tensor : nil
                    let own = parameter.tensor.detached()
                    // Half precision would round away small optimizer updates.
                    let isWide = own.dtype == .float32 || own.dtype == .float64
                    let values = isWide ? base == nil ? parameter.tensor : own.clone() : own.to(.float32)
                    if base == nil { parameter.tensor = values }
                    trained.append(
                        TrainedTensor(
                            path: attachment.path, key: attachment.tensors[0].key,
                            copies: attachment.tensors[0].copies,
                            parameter: parameter,
                            values: values, base: base))
                case .site(let site, let make):
                    let adapter = try make(context)
                    if let replacement = (adapter as? any WeightAdapter)?.replacementWeight {
                        try part?.add(replacement.parameters.map(\.parameter.tensor))
                    }
                    attached.append((attachment.path, site, adapter))
                    siteKinds.append(attachment.site)
                    for parameter in adapter.adapterParameters {
                        let key = attachment.fileKey(parameter.key)
                        if seen.insert(key).inserted { added.append((key, parameter)) }
                    }
                }
            }
        }
        for parameter in parameters.values where !parameter.isCovered { parameter.tensor.requiresGrad = false }
    }

    // MARK: Parameters

    /// All trained parameters.
    public var parameters: [Parameter] {
        added.filter(\.parameter.isTrained).map(\.parameter.parameter) + trained.map(\.parameter)
    }
    /// Learning-rate factor of each of ``parameters``.
    package var rateFactors: [Double] { rateFactors(head: 1) }
    /// ``rateFactors`` with another factor for modules without pretrained weights, such as a classification head.
    package func rateFactors(head: Double) -> [Double] {
        added.filter(\.parameter.isTrained).map(\.parameter.rateFactor)
            + trained.map { tensor in
                model.newModules.contains { tensor.path.hasPrefix($0 + ".") } ? head : 1
            }
    }
    /// Number of trained parameters.
    public var trainableCount: Int { parameters.reduce(0) { $0 + $1.tensor.count } }
    /// Number of added parameters.
    package var addedCount: Int { added.reduce(0) { $0 + $1.parameter.parameter.tensor.count } }
    /// Number of values in the adapter file.
    package var storedCount: Int { storedTensors().values.reduce(0) { $0 + $1.count } }
    /// Whether the model's original values can be restored.
    package var isRemovable: Bool { trained.allSatisfy { $0.base != nil } }

    /// Whether its names in the file have the level of a model that wraps modules; those of virtual tokens don't.
    var wrapsModules: Bool { siteKinds.isEmpty || !siteKinds.allSatisfy { [.input, .keyValues].contains($0) } }

    /// Enables or disables gradients for the adapter's tensors.
    public func setTrainable(_ value: Bool) {
        for (_, parameter) in added { parameter.parameter.tensor.requiresGrad = value && parameter.isTrained }
        for tensor in trained { tensor.values.requiresGrad = value }
    }

    /// The contents of the adapter file, by name.
    public func storedTensors() -> [String: Tensor] {
        var result: [String: Tensor] = [:]
        for (index, entry) in attached.enumerated() {
            for (key, tensor) in entry.adapter.storedTensors() {
                result[AdapterKeys.full(key, site: siteKinds[index], path: entry.path)] = tensor.detached()
            }
        }
        for tensor in trained {
            for key in [tensor.key] + tensor.copies { result[key] = tensor.values.detached() }
        }
        let matrices = (vocabulary?.stored ?? [:]).merging(enlargedVocabulary?.tensors(for: self) ?? [:]) { $1 }
        return result.merging(matrices) { own, _ in own }
    }

    /// Loads values from a file; names and shapes have been checked against the plan.
    func load(_ tensors: [String: Tensor]) throws {
        for (index, entry) in attached.enumerated() {
            let keys = entry.adapter.storedTensors().keys
            let own = keys.reduce(into: [String: Tensor]()) {
                $0[$1] = tensors[AdapterKeys.full($1, site: siteKinds[index], path: entry.path)]
            }
            try entry.adapter.load(own)
        }
        for tensor in trained {
            if let value = tensors[tensor.key] { tensor.values.copy(from: value) }
        }
    }

    // MARK: Switching

    /// Activates the adapter at its sites, on top of those that are active.
    public func activate() {
        guard !isActive else { return }
        vocabulary?.put()
        if let layers, !layers.isPut {
            layers.put()
            findSites()
        }
        for (_, site, adapter) in attached {
            // An adapter that replaces the weight must be next to it.
            if (adapter as? any WeightAdapter)?.replacementWeight != nil {
                site.attachBeneath(adapter)
            } else {
                site.attach(adapter, route: nil)
            }
        }
        for tensor in trained where tensor.base != nil { tensor.parameter.cover(with: tensor.values) }
        isActive = true
    }

    /// Finds the sites again in layers that were stacked anew.
    private func findSites() {
        let modules = Dictionary(model.namedModules().map { ($0.path, $0.module) }, uniquingKeysWith: { $1 })
        attached = attached.map { path, site, adapter in (path, (modules[path] as? any AdapterSite) ?? site, adapter)
        }
    }

    /// Deactivates the adapter and restores the model.
    /// - Throws: ``PEFTError`` if the model's original values weren't saved (full fine-tuning).
    public func deactivate() throws {
        if isMerged { try unmerge() }
        guard isActive else { return }
        guard isRemovable else {
            throw PEFTError(
                "\(choice.label) changed the model's own weights and can't be deactivated",
                remedy: "load the base model again"
            )
        }
        try layers?.checkRemoval(of: attached.map { $0.adapter })
        for (_, site, adapter) in attached { site.detach(adapter) }
        for tensor in trained { tensor.parameter.uncover(tensor.values) }
        layers?.remove()
        vocabulary?.remove()
        isActive = false
    }

    // MARK: Merging

    /// Merges the adapter into the weights, so that it adds no computation.
    /// - Throws: ``PEFTError`` if the method can't be merged, or if another adapter is below it: merge order is
    ///   forward order.
    public func merge() throws {
        guard !isMerged, isActive, !attached.isEmpty else { return }
        guard layers == nil else {
            throw PEFTError(
                "\(choice.label) can't be merged: it stacks layers that share their weights",
                remedy: "keep it as an adapter")
        }
        for (path, site, adapter) in attached {
            guard site.attached.first === adapter else {
                throw PEFTError("adapter '\(name)' is stacked on another one", remedy: "merge the one below it first")
            }
            guard
                adapter is any LinearAdapter || adapter is any EmbeddingAdapter || adapter is any ExpertAdapter,
                choice.isMergeable
            else {
                throw PEFTError(
                    "\(choice.label) can't be merged: its output at \(path) can't be expressed as a weight",
                    remedy: "keep it as an adapter")
            }
            let own = (site as? Linear)?.weight.parameters ?? site.ownParameters()
            guard !own.contains(where: \.parameter.isCovered) else {
                throw PEFTError(
                    "adapter '\(name)' can't be merged: another adapter replaces the weight at \(path)",
                    remedy: "deactivate the other one first")
            }
        }
        try withTorchErrors {
            try withoutGradients {
                // Compute all merged tensors before replacing any.
                let tensors = try attached.map { try mergedTensor($0.site, $0.adapter) }
                for tensor in tensors {
                    switch tensor {
                    case .linear(let linear, let adapter, let change):
                        linear.weight = change.after
                        if let bias = change.bias { linear.bias?.tensor = bias.after }
                        linear.detach(adapter)
                    case .embedding(let table, let adapter, _, let after):
                        table.weight = after
                        table.detach(adapter)
                    case .experts(let site, let adapter, _, let after):
                        site.weight = after
                        site.detach(adapter)
                    }
                }
                merged = tensors
            }
        }
        isMerged = true
    }

    private func mergedTensor(_ site: any AdapterSite, _ adapter: any AdapterModule) throws -> MergedTensor {
        if let linear = site as? Linear, let adapter = adapter as? any LinearAdapter {
            // Rounded once, to the weight's own dtype.
            let weight =
                try adapter.asWeightAdapter?.merged(into: linear.weight)
                ?? linear.weight.replacing(with: adapter.merged(into: linear.weight.dense(as: .float64)))
            var bias: (before: Tensor, after: Tensor)?
            if let own = linear.bias?.tensor {
                let after = try adapter.merged(intoBias: own.to(.float64)).to(own.dtype)
                if !after.isIdentical(to: own) { bias = (own, after) }
            }
            return .linear(
                linear, adapter: adapter, MergedLinear(before: linear.weight, after: weight, bias: bias))
        }
        if let site = site as? ExpertLinear, let adapter = adapter as? any ExpertAdapter {
            let weight = try site.weight.replacing(with: adapter.merged(into: site.weight.dense(as: .float64)))
            return .experts(site, adapter: adapter, before: site.weight, after: weight)
        }
        guard let table = site as? Embedding, let adapter = adapter as? any EmbeddingAdapter else {
            throw PEFTError("\(choice.label) can't be merged", remedy: "keep it as an adapter")
        }
        let isTied = ModelOutline(model).isTied
        guard adapter.reachesTiedOutput || !isTied else {
            throw PEFTError(
                "\(choice.label) over the embedding can't be merged: this \(model.family) model ties its output layer to that matrix",
                remedy: "keep it as an adapter")
        }
        guard table.table == nil else {
            throw PEFTError(
                "an adapter over one of several modules that share an embedding can't be merged",
                remedy: "keep it as an adapter")
        }
        let weight = try table.weight.replacing(with: adapter.merged(into: table.weight.dense(as: .float64)))
        return .embedding(table, adapter: adapter, before: table.weight, after: weight)
    }

    /// Undoes ``merge()``, bit for bit.
    /// - Throws: ``PEFTError`` if another adapter was merged since, which must be unmerged first.
    public func unmerge() throws {
        guard isMerged else { return }
        for tensor in merged where !tensor.isOnTop {
            throw PEFTError(
                "another adapter was merged after '\(name)', or replaces its weights",
                remedy: "unmerge or deactivate that one first")
        }
        for tensor in merged {
            switch tensor {
            case .linear(let linear, let adapter, let change):
                linear.weight = change.before
                if let bias = change.bias { linear.bias?.tensor = bias.before }
                linear.attachBeneath(adapter)
            case .embedding(let table, let adapter, let before, _):
                table.weight = before
                table.attachBeneath(adapter)
            case .experts(let site, let adapter, let before, _):
                site.weight = before
                site.attachBeneath(adapter)
            }
        }
        merged = []
        isMerged = false
    }
}

extension Adapter {
    /// The method's training hook; `nil` if it needs none.
    package func trainingHook() -> (any TrainingHook)? { choice.trainingHook(for: self) }
}
