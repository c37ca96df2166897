import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// An initialization from data that subtracts its start from the weight: CorDA and LoRA-GA.
///
/// A pass over training data before the first step finds A₀ and B₀, and the projection computes W + s (B A − B₀ A₀) from
/// then on. The model's own weight is unchanged, and the file is plain LoRA of twice the rank, [B, −B₀] · [A; A₀]. A file of
/// Hugging Face PEFT holds A and B alone, so it is LoRA over the base that was saved with it; there,
/// `path_initial_model_for_weight_conversion` saves it as it is saved here.
package protocol CalibratedInitialization: LoRAInitialization, NestedLoRAVariant {
    /// Its name in sentences.
    static var title: String { get }
    /// What the pass over data computes, and at most how often.
    static var pass: (kind: CalibrationPass, most: Int) { get }
    /// - Throws: ``PEFTError`` for settings with which a new adapter can't be initialized.
    func checkForNewAdapters() throws
    /// What is collected at a projection.
    func observation(outputs: Int, inputs: Int, device: Device) -> any CalibrationObservation
    /// A₀ `[r, in]` and B₀ `[out, r]` in fp64.
    /// - Throws: ``PEFTError`` if the observation doesn't determine them.
    func start(_ observation: any CalibrationObservation, of weight: any LinearWeight, rank: Int, scale: Double)
        throws
        -> (a: Tensor, b: Tensor)
}

/// What a pass over data collects at a projection.
package protocol CalibrationObservation: AnyObject {
    /// Number of batches.
    var count: Int { get set }
    /// Takes the projection's input `[tokens, in]`.
    func add(_ x: Tensor) throws
    /// Zeros `[out, in]` added to the weight, whose gradient is the weight's; `nil` without gradients.
    var probe: Tensor? { get }
}

extension CalibratedInitialization {
    // The settings alone don't choose it.
    package var isEnabled: Bool { false }
    package var supportsBias: Bool { false }
    package func label(_ name: String) -> String { Self.title }

    package func adapter(over linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & LinearAdapter)?
    {
        guard !context.isLoading else { return nil }
        try checkForNewAdapters()
        return context.device == .meta ? nil : CalibratedLoRAAdapter(linear, branch, context)
    }

    package func adapter(over table: Embedding, _ branch: LoRABranch, _ context: AttachmentContext) throws
        -> (any AdapterModule & EmbeddingAdapter)?
    {
        guard context.isLoading || context.device == .meta else { throw Self.embeddingError(branch.path) }
        return nil
    }

    package func trainingHook(for adapter: Adapter) -> (any TrainingHook)? {
        adapter.isFromFile ? nil : Calibration(self, of: adapter)
    }

    package func fileConfiguration(_ configuration: LoRA.Configuration, of adapter: Adapter) -> LoRA.Configuration {
        guard adapter.attached.contains(where: { $0.adapter is CalibratedLoRAAdapter }) else { return configuration }
        var configuration = configuration
        configuration.variants[Self.self].settings = nil
        return ResidualLoRAAdapter.doubled(configuration)
    }

    package static func note(on configuration: [String: JSON]) -> String? {
        guard configuration["init_lora_weights"] == .string(name) else { return nil }
        return
            "the adapter was trained over a base that \(title) changed; use the base that was saved with it, or save it in "
            + "Hugging Face PEFT with path_initial_model_for_weight_conversion"
    }
}

/// A LoRA branch whose start B₀ A₀ is found in data and subtracted from the weight.
final class CalibratedLoRAAdapter: LoRAAdapter {
    private let weight: any LinearWeight
    /// A₀ and B₀; zero until the pass over data.
    private(set) var start: (a: Tensor, b: Tensor)
    /// What is collected, during the pass.
    private var observation: (any CalibrationObservation)?

    override init(_ linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) {
        weight = linear.weight.snapshot()
        start = (
            .zeros([branch.rank, linear.inputs], dtype: context.dtype, device: context.device),
            .zeros([linear.outputs, branch.rank], dtype: context.dtype, device: context.device)
        )
        super.init(linear, branch, context)
    }

    func begin(_ initialization: any CalibratedInitialization) {
        observation = initialization.observation(outputs: b.dim(0), inputs: a.dim(1), device: a.device)
    }

    func passed() { observation?.count += 1 }

    /// Sets A and B to what the pass found.
    func end(_ initialization: any CalibratedInitialization) throws {
        guard let observation else { return }
        self.observation = nil
        try withoutGradients {
            let found = try initialization.start(observation, of: weight, rank: rank, scale: scale)
            start = (found.a.to(a.dtype).contiguous(), found.b.to(b.dtype).contiguous())
            a.copy(from: start.a)
            b.copy(from: start.b)
        }
    }

    func cancel() { observation = nil }

    /// Continues from a checkpoint, which holds A and B.
    func restore(_ a: Tensor, _ b: Tensor) throws {
        guard a.shape == start.a.shape, b.shape == start.b.shape else {
            throw PEFTError(
                "the checkpoint's start has shapes \(a.shape) and \(b.shape), expected \(start.a.shape) and \(start.b.shape)",
                remedy: "resume with the settings it was saved with")
        }
        start = (a.to(start.a.dtype), b.to(start.b.dtype))
    }

    override var factors: (a: Tensor, b: Tensor) {
        (Tensor.concatenated([a, start.a]), Tensor.concatenated([b, -start.b], axis: 1))
    }

    // Only the trained branch has dropout.
    override var lowRankFactors: LowRankFactors? {
        observation == nil && dropoutRate == 0 ? super.lowRankFactors : nil
    }

    override func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        let y = base(x)
        guard let observation else { return branch(of: x, onto: y) }
        do { try observation.add(x) } catch {
            reportFailure(error as? PEFTError ?? PEFTError("\(error)"))
        }
        return observation.probe.map { y + Functions.linear(x, $0.to(x.dtype)).to(y.dtype) } ?? y
    }

    override func branch(of x: Tensor, onto y: Tensor) -> Tensor {
        guard dropoutRate > 0 else { return super.branch(of: x, onto: y) }
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        let rest = Functions.loraBranch(y, x: x, a: start.a, b: start.b, scale: -scale, dropout: 0, seed: seed)
        return Functions.loraBranch(rest, x: x, a: a, b: b, scale: scale, dropout: probability, seed: seed)
    }

    // MARK: Files

    override var adapterParameters: [AdapterParameter] {
        super.adapterParameters.map {
            AdapterParameter($0.key, $0.parameter, isStored: false, rateFactor: $0.rateFactor)
        }
    }

    override func storedTensors() -> [String: Tensor] {
        withoutGradients {
            let (a, b) = factors
            return ["lora_A.weight": a.detached(), "lora_B.weight": b.detached()]
        }
    }
}

/// The pass over data of ``CalibratedInitialization``.
final class Calibration: CalibratingHook {
    private let initialization: any CalibratedInitialization
    private let adapters: [(path: String, adapter: CalibratedLoRAAdapter)]
    let pass: CalibrationPass
    private let most: Int
    private var batches = 0

    init(_ initialization: any CalibratedInitialization, of adapter: Adapter) {
        self.initialization = initialization
        (pass, most) = type(of: initialization).pass
        adapters = adapter.attached.compactMap { entry in
            (entry.adapter as? CalibratedLoRAAdapter).map { (entry.path, $0) }
        }
    }

    func begin(totalSteps: Int, forward: () throws -> Bool) throws {
        for (_, adapter) in adapters { adapter.begin(initialization) }
        defer { for (_, adapter) in adapters { adapter.cancel() } }
        while batches < most, try forward() {}
        for (path, adapter) in adapters {
            do { try adapter.end(initialization) } catch let error as PEFTError {
                throw PEFTError("\(path): \(error.problem)", remedy: error.remedy)
            }
        }
    }

    func passed() {
        batches += 1
        for (_, adapter) in adapters { adapter.passed() }
    }

    func state() -> [String: Tensor] {
        adapters.reduce(into: [:]) {
            $0["\($1.path).start_A"] = $1.adapter.start.a
            $0["\($1.path).start_B"] = $1.adapter.start.b
        }
    }

    func restore(_ state: [String: Tensor], step: Int) throws {
        for (path, adapter) in adapters {
            guard let a = state["\(path).start_A"], let b = state["\(path).start_B"] else {
                throw PEFTError(
                    "the checkpoint lacks the start of \(path)", remedy: "resume with the settings it was saved with")
            }
            try adapter.restore(a, b)
        }
    }
}
