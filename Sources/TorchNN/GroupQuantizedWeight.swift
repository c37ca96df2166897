import Support
import Torch

/// How a weight is rounded in groups of inputs.
public struct GroupQuantization: Sendable, Equatable {
    /// 2, 3, 4 or 8.
    public var bits: Int
    /// Inputs that share a scale and a zero; `nil` for all of an output's.
    public var groupSize: Int?
    /// Whether the zero lies in the middle of the grid.
    public var isSymmetric: Bool
    /// What files store less than the zeros: 1 in GPTQ's first format, 0 in its second.
    public var zeroOffset: Int

    public init(bits: Int, groupSize: Int?, isSymmetric: Bool = false, zeroOffset: Int = 1) {
        (self.bits, self.groupSize) = (bits, groupSize)
        (self.isSymmetric, self.zeroOffset) = (isSymmetric, zeroOffset)
    }

    /// Values that fill whole words.
    var block: Int { bits == 3 ? 32 : 32 / bits }

    public func groups(of inputs: Int) -> Int {
        guard let groupSize, groupSize > 0 else { return 1 }
        return (inputs + groupSize - 1) / groupSize
    }

    /// Why a matrix of this shape can't be stored so; `nil` where it can.
    public func refusal(outputs: Int, inputs: Int) -> String? {
        // The kernels work on 32 inputs at a time.
        if !inputs.isMultiple(of: 32) { return "\(inputs) inputs are not a multiple of 32" }
        if !outputs.isMultiple(of: block) { return "\(outputs) outputs are not a multiple of \(block)" }
        if let groupSize, !inputs.isMultiple(of: groupSize) {
            return "\(inputs) inputs are not a multiple of the group size \(groupSize)"
        }
        return nil
    }
}

/// A weight of integers of a few bits with a scale and a zero for each output and group of inputs:
/// W[o, i] = scale[g, o] · (q[i, o] − zero[g, o]), as GPTQ's files have it (Frantar et al. 2022).
///
/// The packed integers are what is kept; projections make tiles of numbers out of them as they go, and the backward
/// pass makes them again.
public struct GroupQuantizedWeight: LinearWeight {
    public let outputs: Int
    public let inputs: Int
    public let settings: GroupQuantization
    /// int32 [inputs · bits / 32, outputs]
    public let integers: Parameter
    /// Whole zeros less ``GroupQuantization/zeroOffset``, int32 [groups, outputs · bits / 32].
    public let packedZeros: Parameter
    /// Zeros that aren't whole numbers, [groups, outputs], which count in place of the packed ones.
    public let zeros: Parameter?
    /// [groups, outputs], float16
    public let scales: Parameter
    /// The group of each input, int32 [inputs]
    public let order: Parameter
    private let knowledge = OrderKnowledge()

    public init(
        outputs: Int, inputs: Int, settings: GroupQuantization, integers: Parameter, packedZeros: Parameter,
        zeros: Parameter? = nil, scales: Parameter, order: Parameter
    ) {
        (self.outputs, self.inputs, self.settings) = (outputs, inputs, settings)
        (self.integers, self.packedZeros, self.zeros) = (integers, packedZeros, zeros)
        (self.scales, self.order) = (scales, order)
    }

    /// Shapes without values, to be filled from a file.
    ///
    /// - Parameter zeroType: the type of real zeros; `nil` where there are packed ones alone.
    public init(
        outputs: Int, inputs: Int, settings: GroupQuantization, zeroType: DType? = nil, device: Device = .meta
    ) {
        let groups = settings.groups(of: inputs)
        func empty(_ shape: [Int], _ dtype: DType) -> Parameter {
            Parameter(.empty(shape, dtype: dtype, device: device))
        }
        self.init(
            outputs: outputs, inputs: inputs, settings: settings,
            integers: empty([inputs * settings.bits / 32, outputs], .int32),
            packedZeros: empty([groups, outputs * settings.bits / 32], .int32),
            zeros: zeroType.map { empty([groups, outputs], $0) }, scales: empty([groups, outputs], .float16),
            order: empty([inputs], .int32))
    }

    /// A weight [outputs, inputs] rounded, with the Hessian of the layer's error by GPTQ, else each number to the
    /// nearest.
    /// - Throws: ``PEFTError`` where the matrix doesn't fill whole words and groups.
    public init(
        rounding weight: Tensor, to settings: GroupQuantization, hessian: Tensor? = nil, damping: Double = 0.01
    ) throws {
        let (outputs, inputs) = (weight.dim(0), weight.dim(1))
        if let refusal = settings.refusal(outputs: outputs, inputs: inputs) {
            throw PEFTError(
                "a weight can't be quantized to \(settings.bits) bits: \(refusal)", remedy: "leave it unquantized")
        }
        let device = weight.device
        let groupSize = settings.groupSize ?? inputs
        let rounded = weight.detached().roundedInGroups(
            bits: settings.bits, groupSize: groupSize, isSymmetric: settings.isSymmetric, hessian: hessian,
            damping: damping)
        self.init(
            outputs: outputs, inputs: inputs, settings: settings,
            integers: Parameter(rounded.integers.packed(bits: settings.bits, axis: 0).to(device)),
            packedZeros: Parameter(Self.packed(rounded.zeros, settings).to(device)),
            scales: Parameter(rounded.scales.to(.float16).to(device)),
            order: Parameter(
                Tensor((0..<inputs).map { Int32($0 / groupSize) }, device: device)))
    }

    /// Whole zeros [groups, outputs] as files have them.
    private static func packed(_ zeros: Tensor, _ settings: GroupQuantization) -> Tensor {
        (zeros - Double(settings.zeroOffset)).to(.int32).packed(bits: settings.bits, axis: 1)
    }

    // MARK: As a weight

    private var matrix: GroupQuantizedMatrix {
        let groupSize = settings.groupSize ?? inputs
        return GroupQuantizedMatrix(
            packed: integers.tensor, scales: scales.tensor, zeros: zeros?.tensor ?? packedZeros.tensor,
            order: knowledge.isPlain(order.tensor, groupSize: groupSize) ? nil : order.tensor, bits: settings.bits,
            groupSize: groupSize, zeroOffset: settings.zeroOffset)
    }

    /// The group of each input, int64 [inputs].
    public var groupOfInput: Tensor { order.tensor.to(.int64) }
    /// Whether input i is in group i / groupSize.
    public var hasPlainOrder: Bool { knowledge.isPlain(order.tensor, groupSize: settings.groupSize ?? inputs) }
    public func project(_ x: Tensor, bias: Tensor?) -> Tensor { matrix.project(x, bias: bias) }
    public func dense(as type: DType) -> Tensor { matrix.dense(as: type) }
    /// These numbers rounded to the nearest, each group with a grid of its own.
    public func replacing(with dense: Tensor) throws -> any LinearWeight {
        var settings = settings
        settings.groupSize = hasPlainOrder ? settings.groupSize : settings.groupSize ?? inputs
        return try GroupQuantizedWeight(rounding: dense, to: settings)
    }
    public var parameters: [(key: String, parameter: Parameter)] {
        [("qweight", integers), ("qzeros", packedZeros), ("scales", scales), ("g_idx", order)]
            + (zeros.map { [("zeros", $0)] } ?? [])
    }

    // MARK: Zeros

    /// The zeros as numbers, [groups, outputs].
    public func zeros(as type: DType) -> Tensor {
        if let zeros { return zeros.tensor.to(type) }
        let mask = Double(1 << settings.bits)
        let whole = packedZeros.tensor.unpacked(bits: settings.bits, axis: 1).to(type) + Double(settings.zeroOffset)
        // z − 1 is all ones for 0.
        return whole - (whole.greater(than: mask - 0.5).to(type) * mask)
    }

    /// The same integers and scales over other zeros [groups, outputs].
    ///
    /// - Parameter type: the type that the zeros are kept in; with `nil` they are rounded to whole numbers of the grid.
    public func with(zeros: Tensor, as type: DType?) -> GroupQuantizedWeight {
        let most = Double(1 << settings.bits) - 1
        let whole = zeros.to(.float64).rounded().atLeast(1).atMost(most)
        return GroupQuantizedWeight(
            outputs: outputs, inputs: inputs, settings: settings, integers: integers,
            packedZeros: Parameter(Self.packed(whole, settings)), zeros: type.map { Parameter(zeros.to($0)) },
            scales: scales, order: order)
    }
}

/// What was found out about an order of groups, so that it is looked through once.
private final class OrderKnowledge {
    private weak var known: Tensor?
    private var isPlain = true

    func isPlain(_ order: Tensor, groupSize: Int) -> Bool {
        guard order.device != .meta else { return true }
        if known === order { return isPlain }
        isPlain = order.array(Int32.self).enumerated().allSatisfy { Int($1) == $0 / groupSize }
        known = order
        return isPlain
    }
}
