import PEFTSupport
import Torch

/// A weight of packed integers with a scale and a zero point for each output and group of inputs, W[o, i] = scale[g,
/// o] · (q[i, o] − zero[g, o]), in GPTQ's format (Frantar et al. 2022).
///
/// Only the packed integers are in memory; matmuls dequantize tile by tile, and so does the backward pass.
package struct GroupQuantizedWeight: GroupedWeight {
    package let outputs: Int
    package let inputs: Int
    package let settings: GroupQuantization
    /// int32 `[inputs · bits / 32, outputs]`
    package let integers: Parameter
    /// Integer zero points less ``GroupQuantization/zeroOffset``, int32 `[groups, outputs · bits / 32]`.
    package let packedZeros: Parameter
    /// Floating-point zero points `[groups, outputs]`, which override the packed ones.
    package let zeros: Parameter?
    /// float16 `[groups, outputs]`
    package let scales: Parameter
    /// Group index of each input, int32 `[inputs]`.
    package let order: Parameter
    private let knowledge = OrderKnowledge()

    package init(
        outputs: Int, inputs: Int, settings: GroupQuantization, integers: Parameter, packedZeros: Parameter,
        zeros: Parameter? = nil, scales: Parameter, order: Parameter
    ) {
        (self.outputs, self.inputs, self.settings) = (outputs, inputs, settings)
        (self.integers, self.packedZeros, self.zeros) = (integers, packedZeros, zeros)
        (self.scales, self.order) = (scales, order)
    }

    /// An empty weight, to be filled from a file.
    ///
    /// - Parameter zeroType: dtype of floating-point zero points; `nil` if there are only packed ones.
    package init(
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

    /// Quantizes a weight `[outputs, inputs]`: by GPTQ with the Hessian of the layer's error, else by
    /// round-to-nearest.
    /// - Throws: ``PEFTError`` if the matrix doesn't fill whole words and groups.
    package init(
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

    /// Packs integer zero points `[groups, outputs]`.
    private static func packed(_ zeros: Tensor, _ settings: GroupQuantization) -> Tensor {
        (zeros - Double(settings.zeroOffset)).to(.int32).packed(bits: settings.bits, axis: 1)
    }

    // MARK: As a weight

    package var groupSize: Int { settings.groupSize ?? inputs }
    private var matrix: GroupQuantizedMatrix {
        GroupQuantizedMatrix(
            packed: integers.tensor, scales: scales.tensor, zeros: zeros?.tensor ?? packedZeros.tensor,
            order: knowledge.isPlain(order.tensor, groupSize: groupSize) ? nil : order.tensor, bits: settings.bits,
            groupSize: groupSize, zeroOffset: settings.zeroOffset)
    }

    /// Whether input i is in group i / groupSize.
    package var hasPlainOrder: Bool { knowledge.isPlain(order.tensor, groupSize: groupSize) }
    package func project(_ x: Tensor, bias: Tensor?) -> Tensor { matrix.project(x, bias: bias) }
    package var projectionMatrix: Projection.Matrix? { .groups(matrix) }
    package func crossEntropy(
        hidden: Tensor, bias: Tensor?, targets: Tensor, scale: Double, softcap: Double?, labelSmoothing: Double
    ) -> Tensor {
        matrix.crossEntropy(
            hidden: hidden, bias: bias, targets: targets, scale: scale, softcap: softcap,
            labelSmoothing: labelSmoothing)
    }
    package func dense(as type: DType) -> Tensor { matrix.dense(as: type) }
    package var formatName: String { "group-wise integers" }
    package var grouped: (any GroupedWeight)? { self }
    package var declaration: WeightDeclaration? {
        .gptq(settings, zeroType: zeros?.tensor.dtype, hasOrder: !hasPlainOrder)
    }
    /// Quantizes other values by round-to-nearest with new grids.
    package func replacing(with dense: Tensor) throws -> any LinearWeight {
        var settings = settings
        settings.groupSize = hasPlainOrder ? settings.groupSize : settings.groupSize ?? inputs
        return try GroupQuantizedWeight(rounding: dense, to: settings)
    }
    package var parameters: [(key: String, parameter: Parameter)] {
        [("qweight", integers), ("qzeros", packedZeros), ("scales", scales), ("g_idx", order)]
            + (zeros.map { [("zeros", $0)] } ?? [])
    }

    // MARK: Zero points

    /// The zero points as floats, `[groups, outputs]`.
    package func zeros(as type: DType) -> Tensor {
        if let zeros { return zeros.tensor.to(type) }
        let mask = Double(1 << settings.bits)
        let whole = packedZeros.tensor.unpacked(bits: settings.bits, axis: 1).to(type) + Double(settings.zeroOffset)
        // A stored z − 1 with all bits set is z = 0.
        return whole - (whole.greater(than: mask - 0.5).to(type) * mask)
    }

    /// The same integers and scales with other zero points `[groups, outputs]`.
    ///
    /// - Parameter type: dtype to store the zero points in; with `nil` they are rounded to integers of the grid.
    package func with(zeros: Tensor, as type: DType?) -> GroupQuantizedWeight {
        let most = Double(1 << settings.bits) - 1
        let whole = zeros.to(.float64).rounded().atLeast(1).atMost(most)
        return GroupQuantizedWeight(
            outputs: outputs, inputs: inputs, settings: settings, integers: integers,
            packedZeros: Parameter(Self.packed(whole, settings)), zeros: type.map { Parameter(zeros.to($0)) },
            scales: scales, order: order)
    }
}

/// Caches whether a group order is contiguous.
final class OrderKnowledge {
    private weak var known: Tensor?
    private var isPlain = true

    /// - Parameter inputs: length of each row of several orders; `nil` for one.
    func isPlain(_ order: Tensor, groupSize: Int, inputs: Int? = nil) -> Bool {
        guard order.device != .meta else { return true }
        if known === order { return isPlain }
        let length = inputs ?? order.count
        isPlain = order.array(Int32.self).enumerated().allSatisfy { Int($1) == $0 % max(1, length) / groupSize }
        known = order
        return isPlain
    }
}

extension WeightFormat.Family {
    /// `int2`, `int3`, `int4` or `int8`, followed by `-g` and the group size, and optionally `-gptq`, as in
    /// `int4-g32-gptq`. (Plain `int8` has one scale per output.)
    static let groups = Self(
        names: [],
        summary: "group-wise integers such as int4-g32 and int4-g32-gptq (group sizes are multiples of 32)",
        loadingSummary: "group-wise integers such as int4-g32 (group sizes are multiples of 32)",
        groupBits: GroupQuantization.supportedBits
    ) { name, _ in
        var parts = name.split(separator: "-").map(String.init)
        let bits = GroupQuantization.supportedBits.first { parts.first == "int\($0)" }
        guard let bits, bits != 8 || parts.count > 1 else { return nil }
        parts.removeFirst()
        let usesGPTQ = parts.last == "gptq"
        if usesGPTQ { parts.removeLast() }
        var groupSize = WeightFormat.usualGroupSize
        if let group = parts.first {
            guard parts.count == 1, group.hasPrefix("g"), let size = Int(group.dropFirst()), size > 0,
                size.isMultiple(of: 32)
            else { return nil }
            groupSize = size
        }
        return .groups(GroupQuantization(bits: bits, groupSize: groupSize), usesGPTQ: usesGPTQ)
    }
}

extension WeightFormat {
    /// Group size unless the name has one: inputs that share a scale and a zero point.
    package static let usualGroupSize = 128

    /// Group-wise integers, by GPTQ (Frantar et al. 2022) or round-to-nearest.
    package static func groups(_ settings: GroupQuantization, usesGPTQ: Bool) -> WeightFormat {
        WeightFormat(
            "int\(settings.bits)-g\(settings.groupSize ?? 0)\(usesGPTQ ? "-gptq" : "")",
            groups: Groups(settings: settings, usesGPTQ: usesGPTQ))
    }
}
