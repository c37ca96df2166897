import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// LoRA of tensors that belong to no projection of their own, above all the stacked matrices of experts, as Hugging Face
/// PEFT's `target_parameters` selects them.
///
/// One adapter over all experts of a projection: W_e + s B_e A_e with rank r for each expert e. A file has A as
/// `[experts · r, in]` and B as `[out, r · experts]`, in which the experts of a column of B_e alternate.
final class ExpertLoRA: Module, ExpertAdapter, AdapterModule {
    @ParameterInfo(key: "lora_A.weight") var a: Tensor = .zeros([0])
    @ParameterInfo(key: "lora_B.weight") var b: Tensor = .zeros([0])
    let scale: Double
    /// The rank of each expert.
    let rank: Int
    private let experts: Int
    private let rateRatio: Double
    /// What precedes the tensors' names in a file.
    private let prefix: String

    init(_ site: ExpertLinear, _ branch: LoRABranch, prefix: String, _ context: AttachmentContext) {
        (scale, rank, experts, rateRatio) = (branch.scale, branch.rank, site.experts, branch.rateRatio)
        self.prefix = prefix
        super.init()
        let (dtype, device) = (context.dtype, context.device)
        a = .empty([rank * experts, site.inputs], dtype: dtype, device: device)
        b = .zeros([site.outputs, rank * experts], dtype: dtype, device: device)
        guard device != .meta else { return }
        branch.initialization.initialize(a: a, b: b, from: &context.random)
    }

    static func specs(_ site: ModelOutline.ExpertSite, rank: Int, prefix: String) -> [TensorSpec] {
        [
            TensorSpec(prefix + "lora_A.weight", [rank * site.experts, site.inputs]),
            TensorSpec(prefix + "lora_B.weight", [site.outputs, rank * site.experts]),
        ]
    }

    var adapterParameters: [AdapterParameter] {
        parameters().map { path, parameter in
            AdapterParameter(prefix + path, parameter, rateFactor: path == "lora_A.weight" ? 1 : rateRatio)
        }
    }

    var factors: (a: Tensor, b: Tensor, scale: Double) {
        (
            a.reshaped(experts, rank, a.dim(1)), b.reshaped(b.dim(0), rank, experts).permuted(2, 0, 1), scale
        )
    }

    func merged(into weight: Tensor) throws -> Tensor {
        // Computed in fp64 and rounded once.
        let (a, b, _) = factors
        let update = b.detached().to(.float64).contiguous().matmul(a.detached().to(.float64)) * scale
        return (weight.to(.float64) + update).to(weight.dtype)
    }
}

extension ExpertLoRA: ScaledDelta {
    var deltaRank: Int { rank }
    var deltaScale: Double { scale }
}

extension LoRA.Configuration {
    /// The configuration for a model whose experts are one tensor, if it names projections of single experts as in models of
    /// transformers before version 5: they become ``parameters``, the fused gate and up projection with twice the rank and
    /// α, as in Hugging Face PEFT.
    func withStackedExperts(for model: ModelOutline) -> LoRA.Configuration {
        guard let names = model.modelFamily.modules.expertTargets else { return self }
        var copy = self
        var targets = selection.targets
        if targets == ["all-linear"] {
            targets = TargetSelection.leaves(model.linears.map(\.path).filter { $0 != model.outputLayer })
            targets = Array(Set(targets).union(names.map(\.old)))
        } else if selection.isPattern {
            return self
        }
        /// The new name of a target.
        func renamed(_ target: String) -> (old: String, new: String)? {
            names.first { target == $0.old || target.hasSuffix("." + $0.old) }
        }
        let found = targets.compactMap(renamed)
        let fused = names.filter { $0.new == "gate_up_proj" }.map(\.old)
        let given = Set(found.map(\.old)).intersection(fused)
        // Half of a fused projection is left, and reported by the plan.
        guard !found.isEmpty, given.isEmpty || given.count == fused.count else { return self }
        copy.parameters = Array(Set(parameters).union(found.map(\.new))).sorted()
        copy.selection.targets = targets.filter { renamed($0) == nil }.sorted()
        if given.count == fused.count {
            copy.rankPattern[#".*\.gate_up_proj"#] = Double(rank * fused.count)
            copy.alphaPattern[#".*\.gate_up_proj"#] = alpha * Double(fused.count)
        }
        return copy
    }

    /// The adapters of ``parameters``.
    /// - Parameter adapted: paths of projections that are adapted as modules.
    func parameterAttachments(for model: ModelOutline, adapted: [String]) throws -> [Attachment] {
        guard !parameters.isEmpty else { return [] }
        func isNamed(_ path: String) -> Bool { parameters.contains { TargetSelection.names($0, path) } }
        let experts = model.experts.filter { isNamed($0.path) }
        let linears = (model.linears + model.routers).filter { isNamed($0.path + ".weight") }
        let known = Set(experts.map(\.path) + linears.map { $0.path + ".weight" })
        if let other = model.parameters.first(where: { isNamed($0.path) && !known.contains($0.path) }) {
            throw PEFTError(
                "--target-parameters names '\(other.path)', which is not the matrix of experts or of a projection",
                remedy: "name such matrices, as mlp.experts.gate_up_proj")
        }
        let unused = parameters.filter { name in !known.contains { TargetSelection.names(name, $0) } }
        if let first = unused.first, !selection.allowsUnusedTargets || known.isEmpty {
            let names = Set(model.experts.map { TargetSelection.leaves([$0.path])[0] }).sorted()
            throw PEFTError(
                "the target parameter '\(first)' matches no matrix of this \(model.family) model",
                remedy: names.isEmpty ? "use --targets" : "its experts have \(names.joined(separator: ", "))")
        }
        try requirePlainParameters()
        if let both = linears.first(where: { adapted.contains($0.path) }) {
            throw PEFTError(
                "'\(both.path)' is among --targets and --target-parameters", remedy: "remove it from one of them")
        }
        let stacks = try Dictionary(grouping: experts, by: \.layerPath).values.flatMap { sites in
            // PEFT wraps the layer's experts once for each tensor: the last is outermost.
            try sites.enumerated().map { index, site -> (path: String, attachment: Attachment) in
                let levels = String(repeating: "base_layer.", count: sites.count - 1 - index)
                let prefix = "\(AdapterKeys.prefix)\(site.layerPath).\(levels)"
                let branch = try LoRA.branch(self, at: site.path)
                let specs = ExpertLoRA.specs(site, rank: branch.rank, prefix: prefix)
                return (
                    site.path,
                    .experts(site.path, specs) { ExpertLoRA($0, branch, prefix: prefix, $1) }
                )
            }
        }
        let matrices = try linears.map { site -> Attachment in
            let branch = try LoRA.branch(self, at: site.path + ".weight")
            return .linear(
                site.path,
                [
                    .init("lora_A.weight", [branch.rank, site.inputs]),
                    .init("lora_B.weight", [site.outputs, branch.rank]),
                ]
            ) { LoRAAdapter($0, branch, $1) }
        }
        let order = Dictionary(
            model.experts.enumerated().map { ($0.element.path, $0.offset) }, uniquingKeysWith: { first, _ in first })
        return stacks.sorted { order[$0.path] ?? 0 < order[$1.path] ?? 0 }.map(\.attachment) + matrices
    }

    /// - Throws: ``PEFTError`` for settings that PEFT rejects, as x can't be separated from the matrix there.
    private func requirePlainParameters() throws {
        let problem =
            dropout > 0
            ? "a dropout" : extras.hasBias ? "--lora-bias" : extras.slices != nil ? "--slices" : nil
        if let problem {
            throw PEFTError(
                "LoRA of experts can't be combined with \(problem)", remedy: "remove it, or --target-parameters")
        }
        let isFromData = variants.uses(EVA.self) || variants.initialization is any CalibratedInitialization
        guard variants.isPlain, !isFromData else {
            throw PEFTError(
                "LoRA of experts can't be combined with DoRA or an initialization that reads the weight or data",
                remedy: "use --init default")
        }
    }

    /// - Throws: ``PEFTError`` if only one of two projections is a target that are one tensor in the model.
    func requireWholeExperts(in model: ModelOutline) throws {
        guard let names = model.modelFamily.modules.expertTargets, !selection.isPattern else { return }
        let fused = names.filter { $0.new == "gate_up_proj" }.map(\.old)
        let given = fused.filter { old in selection.targets.contains { $0 == old || $0.hasSuffix("." + old) } }
        guard let first = given.first, let missing = fused.first(where: { !given.contains($0) }) else { return }
        throw PEFTError(
            "the target '\(first)' is one tensor with '\(missing)' in the experts of this \(model.family) model",
            remedy: "name '\(missing)', too, or neither")
    }
}
