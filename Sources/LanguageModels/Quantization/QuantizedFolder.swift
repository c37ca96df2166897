import Support
import Torch
import TorchNN

/// Ways in which folders store quantised weights, by `quant_method` of their `quantization_config`. A new one is a file
/// here and a line in ``schemes``.
enum QuantizedFolder {
    /// Makes shapes for one matrix, to be filled from the folder's tensors.
    typealias Shapes = (_ outputs: Int, _ inputs: Int, _ path: String) throws -> any LinearWeight

    static let schemes: [String: @Sendable (JSON) throws -> Shapes] = [
        GPTQFormat.method: { try GPTQFormat($0).weight }, AWQFormat.method: { try AWQFormat($0).weight },
    ]

    /// A configuration without `quantization_config`, and what that says; `nil` where there is none.
    /// - Throws: ``PEFTError`` for a method that isn't supported.
    static func split(_ configuration: JSON, file: String) throws -> (configuration: JSON, shapes: Shapes?) {
        guard let settings = configuration["quantization_config"], settings != .null,
            case .object(var fields) = configuration
        else { return (configuration, nil) }
        let method = settings["quant_method"]?.string ?? ""
        guard let scheme = schemes[method] else {
            throw PEFTError(
                "\(file): 'quantization_config.quant_method' is '\(method)', which is not supported",
                remedy: "supported are \(schemes.keys.sorted().joined(separator: ", "))")
        }
        fields["quantization_config"] = nil
        return (.object(fields), try scheme(settings))
    }

    /// Puts quantised shapes in place of the projections' own.
    ///
    /// - Parameter isQuantised: whether the folder holds the projection at a path in quantised form.
    static func prepare(_ model: any LanguageModel, _ shapes: Shapes, where isQuantised: (String) -> Bool) throws {
        for (path, module) in model.namedModules() {
            guard let linear = module as? Linear, isQuantised(path) else { continue }
            linear.weight = try shapes(linear.outputs, linear.inputs, path)
        }
    }

    /// The `quantization_config` of a model's weights; `nil` where all are plain numbers.
    static func configuration(of model: any LanguageModel) throws -> JSON? {
        try GPTQFormat(of: model.namedModules().compactMap { ($0.module as? Linear)?.weight as? GroupQuantizedWeight })?
            .json
    }
}

extension LanguageModel {
    /// Keeps zeros that aren't whole numbers, which merging makes, in some type; with `nil` they are rounded to the grid.
    public func storeZeros(as type: DType?) {
        for (_, module) in namedModules() {
            guard let linear = module as? Linear, let weight = linear.weight as? GroupQuantizedWeight,
                let zeros = weight.zeros?.tensor
            else { continue }
            linear.weight = weight.with(zeros: zeros, as: type)
        }
    }

    /// Whether some weights have zeros that are no whole numbers.
    public var hasRealZeros: Bool {
        namedModules().contains { (($0.module as? Linear)?.weight as? GroupQuantizedWeight)?.zeros != nil }
    }

    /// The parameters that are kept as they are stored, whatever type the model computes in: packed integers, and the
    /// scales and zeros beside them.
    public var storedAsTheyAre: Set<ObjectIdentifier> {
        let weights = namedModules().compactMap { ($0.module as? Linear)?.weight }
        return Set(
            weights.filter { !($0 is DenseWeight || $0 is TransposedWeight) }
                .flatMap { $0.parameters.map { ObjectIdentifier($0.parameter) } })
    }
}
