import PEFTSupport
import Torch
import TorchNN

/// The LoRA branch of one projection: x `[..., in]` -> `[..., out]`.
class LoRAAdapter: Module, WeightAdapter, AdapterModule {
    /// A `[r, in]`; by default uniform in ±1/√in (Kaiming with a = √5, as in Hugging Face PEFT).
    @ParameterInfo(key: "lora_A.weight") var a: Tensor = .zeros([0])
    /// B `[out, r]`; by default zero, so that training starts at the base model.
    @ParameterInfo(key: "lora_B.weight") var b: Tensor = .zeros([0])
    let scale: Double
    let dropoutRate: Double
    /// Learning-rate factor of B (LoRA+).
    private let rateRatio: Double
    /// The planned rank, which a data-dependent initialization may change.
    let plannedRank: Int
    /// Whether B is trained.
    private let trainsB: Bool
    /// Collects the inputs before training, for data-dependent initializations.
    var observer: InputCovariance?
    var rank: Int { a.dim(0) }

    init(_ linear: Linear, _ branch: LoRABranch, _ context: AttachmentContext) {
        (scale, dropoutRate, plannedRank) = (branch.scale, branch.dropout, branch.rank)
        (rateRatio, trainsB) = (branch.rateRatio, branch.trainsB)
        super.init()
        let (dtype, device) = (context.dtype, context.device)
        a = .empty([branch.rank, linear.inputs], dtype: dtype, device: device)
        b = .zeros([linear.outputs, branch.rank], dtype: dtype, device: device)
        guard device != .meta else { return }
        branch.initialization.initialize(a: a, b: b, from: &context.random)
    }

    var adapterParameters: [AdapterParameter] {
        parameters().map { path, parameter in
            // A magnitude has one axis and gets B's learning rate, as in LoRA+'s reference implementation.
            let isA = path == "lora_A.weight"
            return AdapterParameter(
                path, parameter, isTrained: trainsB || path != "lora_B.weight", rateFactor: isA ? 1 : rateRatio)
        }
    }

    func storedTensors() -> [String: Tensor] {
        adapterParameters.reduce(into: [:]) { if $1.isStored { $0[$1.key] = $1.parameter.tensor } }
    }

    func load(_ tensors: [String: Tensor]) throws {
        for parameter in adapterParameters {
            if let value = tensors[parameter.key] { parameter.parameter.tensor.copy(from: value) }
        }
    }

    /// Whether the branch only adds s B A, so that it can be combined with others.
    var isDelta: Bool { true }
    /// The factors of the delta s B A, which a variant computes from its tensors: `[r, in]` and `[out, r]`.
    var factors: (a: Tensor, b: Tensor) { (a, b) }
    var replacementWeight: (any LinearWeight)? { nil }
    var lowRankFactors: LowRankFactors? {
        guard observer == nil else { return nil }
        let (a, b) = factors
        return LowRankFactors(a: a, b: b, scale: scale, dropout: dropoutRate)
    }

    var rowBranch: RowBranch? { lowRankFactors.map { RowBranch($0) } }

    /// Sets the directions A `[r, in]`, with B zero.
    func begin(with directions: Tensor) {
        let requiresGrad = a.requiresGrad
        a = directions.detached().to(a.dtype).contiguous()
        b = .zeros([b.dim(0), directions.dim(0)], dtype: b.dtype, device: b.device)
        (a.requiresGrad, b.requiresGrad) = (requiresGrad, requiresGrad)
    }

    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
        observer?.add(x)
        return branch(of: x, onto: base(x))
    }

    /// y + s · drop(x) Aᵀ Bᵀ.
    func branch(of x: Tensor, onto y: Tensor) -> Tensor {
        let (probability, seed) = DropoutScope.draw(dropoutRate)
        let (a, b) = factors
        return Functions.loraBranch(y, x: x, a: a, b: b, scale: scale, dropout: probability, seed: seed)
    }

    /// The tokens of x that the branch acts on.
    func activity(of x: Tensor) -> InvocationScope.Mask { .all }

    func merged(into weight: Tensor) throws -> Tensor {
        // Computed in fp64 and rounded once.
        let (a, b) = factors
        let update = b.detached().to(.float64).matmul(a.detached().to(.float64)) * scale
        return (weight.to(.float64) + update).to(weight.dtype)
    }
}
