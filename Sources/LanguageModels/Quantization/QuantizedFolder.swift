import Support
import Torch
import TorchNN

/// Ways in which folders store quantised weights, by `quant_method` of their `quantization_config`. A new one is a file
/// here and a line in ``schemes``.
enum QuantizedFolder {
    /// Makes shapes for one matrix, to be filled from the folder's tensors; `isStored` says which of them are there, by
    /// their names below the projection's.
    typealias Shapes =
        (_ outputs: Int, _ inputs: Int, _ path: String, _ isStored: (String) -> Bool) throws -> any LinearWeight

    static let schemes: [String: @Sendable (JSON) throws -> Shapes] = [
        GPTQFormat.method: { json in
            let format = try GPTQFormat(json)
            return { try format.weight(outputs: $0, inputs: $1, at: $2, hasZeros: $3("zeros")) }
        },
        AWQFormat.method: { json in
            let format = try AWQFormat(json)
            return { outputs, inputs, path, _ in try format.weight(outputs: outputs, inputs: inputs, at: path) }
        },
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
    /// - Parameter names: the folder's tensors, by the model's names; `nil` where no file says which projections are
    ///   quantised, and all but the output layer and new modules are taken to be.
    static func prepare(_ model: any LanguageModel, _ shapes: Shapes, names: Set<String>?) throws {
        let left = (model.newModules + [model.outputLayer]).filter { !$0.isEmpty }
        for (path, module) in model.namedModules() {
            guard let linear = module as? Linear else { continue }
            let isQuantised =
                names?.contains(path + ".qweight") ?? !left.contains { path == $0 || path.hasPrefix($0 + ".") }
            guard isQuantised else { continue }
            linear.weight = try shapes(linear.outputs, linear.inputs, path) {
                names?.contains("\(path).\($0)") ?? true
            }
        }
    }

    /// The `quantization_config` of a model's weights; `nil` where all are plain numbers.
    static func configuration(of model: any LanguageModel) throws -> JSON? {
        try GPTQFormat(
            of: model.namedModules().compactMap { ($0.module as? Linear)?.weight as? GroupQuantizedWeight })?
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
