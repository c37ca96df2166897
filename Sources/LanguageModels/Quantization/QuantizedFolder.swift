import PEFTSupport
import Torch
import TorchNN

/// Formats of quantized weights in folders, by `quant_method` of their `quantization_config`. To add one, add a file
/// here and a line in ``methods``.
enum QuantizedFolder {
    static let methods: [Method] = [.gptq, .awq, .gguf, .bitsAndBytes, .mxfp4, .compressedTensors]

    /// One `quant_method`.
    struct Method: Sendable {
        let name: String
        /// Reads a `quantization_config`.
        let scheme: @Sendable (JSON) throws -> Scheme
        /// The `quantization_config` of a model with these projections; `nil` if none are declared so. `nil` for a
        /// method that is only read.
        var configuration: (@Sendable (Projections) throws -> JSON?)?
    }

    struct Scheme {
        /// The tensor below a projection whose presence marks it as quantized.
        var marker = "qweight"
        /// Creates an empty weight for one matrix, to be filled from the folder's tensors.
        let shapes: (_ outputs: Int, _ inputs: Int, _ path: String, Stored?) throws -> any LinearWeight
        /// Creates the empty matrices of all experts of a projection; `nil` for a method without experts.
        var experts: ((_ experts: Int, _ outputs: Int, _ inputs: Int, _ path: String) throws -> any ExpertWeight)?
        /// Whether the method quantizes experts alone.
        var isForExpertsOnly = false
    }

    /// Shape of a tensor in the folder by its name below the projection's; `nil` without files.
    typealias Stored = (String) -> [Int]?

    /// A model's projections with how their weights are declared.
    struct Projections {
        let all: [(path: String, declaration: WeightDeclaration?)]
        /// Path of the output layer; empty if there is none.
        let outputLayer: String
        /// Paths of the other parts of a multimodal model, which aren't quantized.
        let otherParts: [String]
    }

    /// Splits `quantization_config` from a configuration; the scheme is `nil` if there is none.
    /// - Throws: ``PEFTError`` for an unsupported method.
    static func split(_ configuration: JSON, file: String) throws -> (configuration: JSON, scheme: Scheme?) {
        guard let settings = configuration["quantization_config"], settings != .null,
            case .object(var fields) = configuration
        else { return (configuration, nil) }
        let method = settings["quant_method"]?.string ?? ""
        guard let scheme = methods.first(where: { $0.name == method })?.scheme else {
            let names = (methods.map(\.name) + [Float8Format.method]).sorted()
            throw PEFTError(
                "\(file): 'quantization_config.quant_method' is '\(method)', which is not supported",
                remedy: "supported methods are \(names.joined(separator: ", "))")
        }
        fields["quantization_config"] = nil
        return (.object(fields), try scheme(settings))
    }

    /// Replaces the projections' weights by empty quantized ones.
    ///
    /// - Parameter stored: shapes of the folder's tensors by the model's names; if `nil`, all projections except the
    ///   output layer and untrained heads are assumed to be quantized.
    static func prepare(_ model: any LanguageModel, _ scheme: Scheme, stored: [String: [Int]]?) throws {
        let left = (model.newModules + [model.outputLayer]).filter { !$0.isEmpty }
        for (path, module) in model.namedModules() {
            if let site = module as? ExpertLinear, let experts = scheme.experts {
                let isQuantized =
                    scheme.isForExpertsOnly || stored.map { $0["\(path).\(scheme.marker)"] != nil } ?? true
                if isQuantized { site.weight = try experts(site.experts, site.outputs, site.inputs, path) }
                continue
            }
            guard let linear = module as? Linear, !scheme.isForExpertsOnly else { continue }
            let isQuantized =
                stored.map { $0["\(path).\(scheme.marker)"] != nil }
                ?? !left.contains { path == $0 || path.hasPrefix($0 + ".") }
            guard isQuantized else { continue }
            linear.weight = try scheme.shapes(
                linear.outputs, linear.inputs, path, stored.map { all in { all["\(path).\($0)"] } })
        }
    }

    /// The `quantization_config` of a model's weights; `nil` if none are quantized.
    /// - Throws: ``PEFTError`` for experts in a format that files don't have.
    static func configuration(of model: any LanguageModel) throws -> JSON? {
        var others: [(path: String, weight: any ExpertWeight)] = []
        for (path, module) in model.namedModules() {
            if let site = module as? ExpertLinear, site.weight.precision != .full {
                others.append((path, site.weight))
            }
        }
        let hasSeparateExperts = model.modelFamily.modules.experts?.separate != nil
        let declared = others.filter { $0.weight.declaration != nil && hasSeparateExperts }
        others.removeAll { $0.weight.declaration != nil && hasSeparateExperts }
        if let first = others.first {
            guard others.allSatisfy({ $0.weight.areSiblings }) else {
                throw PEFTError(
                    "the experts at '\(first.path)' are stored as \(first.weight.formatName), which model folders don't have",
                    remedy: "load the model without --weights")
            }
            return ["quant_method": .string(first.weight.formatName)]
        }
        let projections = Projections(
            all: model.namedModules().compactMap { path, module in
                (module as? Linear).map { (path, $0.weight.declaration) }
            } + declared.map { ($0.path, $0.weight.declaration) }, outputLayer: model.outputLayer,
            otherParts: model.modelFamily.modules.otherParts.map { String($0.dropLast()) })
        for method in methods {
            if let configuration = try method.configuration?(projections) { return configuration }
        }
        return nil
    }
}

extension LanguageModel {
    /// Stores floating-point zero points, which merging creates, in a dtype; with `nil` they are rounded to the grid.
    package func storeZeroPoints(as type: DType?) {
        for (_, module) in namedModules() {
            guard let linear = module as? Linear, let weight = linear.weight.grouped,
                let zeros = weight.zeros?.tensor
            else { continue }
            linear.weight = weight.with(zeros: zeros, as: type)
        }
    }

    /// Whether some weights have floating-point zero points.
    package var hasFloatZeroPoints: Bool {
        namedModules().contains { ($0.module as? Linear)?.weight.grouped?.zeros != nil }
    }

    /// Parameters that keep their stored dtype whatever the model computes in: packed integers with their scales and
    /// zero points.
    package var storedAsTheyAre: Set<ObjectIdentifier> {
        let weights = namedModules().compactMap { _, module in
            (module as? Linear)?.weight ?? (module as? Embedding)?.weight
        }
        let experts = namedModules().compactMap { ($0.module as? ExpertLinear)?.weight }
        return Set(
            experts.filter { $0.precision == .quantized }
                .flatMap { $0.parameters.map { ObjectIdentifier($0.parameter) } }
        ).union(
            // A key path in place of the closure crashes the compiler of Swift 6.3.1.
            weights.filter { $0.isQuantized }
                .flatMap { $0.parameters.map { ObjectIdentifier($0.parameter) } })
    }
}
