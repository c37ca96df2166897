import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Trains selected tensors of the model itself: by component, layer, parameter kind and name. Filters are combined
/// with AND. The file contains only these tensors.
public enum Selective: BuiltInMethod {
    /// Options of ``Selective``.
    public struct Configuration: BuiltInConfiguration {
        /// Names of ``Component``s; all if empty.
        public var components: [String] = []
        /// `first:2`, `last:2`, or indices; all layers and parameters outside layers if empty.
        public var layers = ""
        /// `weight`, `bias`; all if empty.
        public var kinds: [String] = []
        /// Regular expressions or dotted path parts, of which at least one must match; all if empty.
        public var patterns: [String] = []

        /// The default options.
        public init() {}

        /// - Parameters:
        ///   - components: parts of the model, such as attention.
        ///   - layers: indices of layers; `nil` for all.
        ///   - kinds: weights or biases.
        ///   - patterns: regular expressions of paths.
        public init(components: [String] = [], layers: String = "", kinds: [String] = [], patterns: [String] = []) {
            (self.components, self.layers, self.kinds, self.patterns) = (components, layers, kinds, patterns)
        }

        private static func list(
            _ name: String, key: String, _ path: WritableKeyPath<Configuration, [String]> & Sendable, help: String
        ) -> ConfigurationField<Configuration> {
            .init(name, key: key, .names, help: help) {
                .array($0[keyPath: path].map { .string($0) })
            } write: {
                $0[keyPath: path] = try $1.string.map { [$0] } ?? names($1)
            }
        }

        package func check() throws {
            let known = Component.allCases.map(\.rawValue)
            for component in components where !known.contains(component) {
                throw PEFTError(
                    "unknown component '\(component)'",
                    remedy: (nearestName(to: component, in: known).map { "did you mean '\($0)'? " } ?? "")
                        + "use one of \(known.joined(separator: ", "))")
            }
            for kind in kinds where !["weight", "bias"].contains(kind) {
                throw PEFTError("unknown kind of parameters '\(kind)'", remedy: "use weight or bias")
            }
            _ = try LayerFilter(layers)
        }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] = [
                list(
                    "components", key: "components", \.components,
                    help: "components to train: attention, feed-forward, norms, embeddings, head (default: all)"),
                .init(
                    "select-layers", key: "layers", .text,
                    help: "layers to train: first:2, last:2, or indices such as 0-3,7 (default: all)"
                ) {
                    .string($0.layers)
                } write: {
                    $0.layers = try text($1)
                },
                list(
                    "kinds", key: "kinds", \.kinds, help: "kinds of parameters to train: weight, bias (default: both)"
                ),
                list(
                    "pattern", key: "patterns", \.patterns,
                    help: "parts of parameter paths, or regular expressions (default: all)"
                ),
            ]
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = Selective.Configuration
        package static let name = "selective"
        package static let peftType: String? = "SELECTIVE"
        package static let isReadableByHuggingFace = false
        package static let summary = "train selected parameters: by component, layer, kind or name pattern"
        package static let defaultLearningRate = 1e-3

        package static let defaults = Configuration(components: ["norms"])

        package static func label(_ configuration: Configuration) -> String {
            let parts = [
                configuration.components.joined(separator: " and "),
                configuration.layers.isEmpty ? "" : "layers \(configuration.layers)",
                configuration.kinds.map { $0 == "bias" ? "biases" : "weights" }.joined(separator: " and "),
                configuration.patterns.joined(separator: ", "),
            ].filter { !$0.isEmpty }
            return "selective (\(parts.isEmpty ? "everything" : parts.joined(separator: ", ")))"
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let layers = try LayerFilter(configuration.layers)
            let matchers = try configuration.patterns.map { pattern in
                (pattern, try TargetSelection.wholeMatch("(.*\\.)?(\(pattern))(\\..*)?", option: "pattern"))
            }
            let isTied = !model.parameters.contains { $0.component == .head }
            if configuration.components.contains("head"), isTied {
                throw PEFTError(
                    "this \(model.family) model's output layer is tied to its embedding",
                    remedy: "select embeddings instead of head")
            }
            let depths = LayerFilter.depths(model)
            let chosen = try model.parameters.filter { parameter in
                try
                    (configuration.components.isEmpty
                    || configuration.components.contains(parameter.component.rawValue))
                    && (configuration.kinds.isEmpty || configuration.kinds.contains(parameter.leaf))
                    && layers.contains(parameter, depths: depths)
                    && (matchers.isEmpty || matchers.contains { try $0.1.matches(parameter.path) })
            }
            guard !chosen.isEmpty else {
                let known = Component.allCases.filter { component in
                    model.parameters.contains { $0.component == component }
                }
                throw PEFTError(
                    "\(label(configuration)) selects no parameter of this \(model.family) model",
                    remedy:
                        "it has \(known.map(\.rawValue).joined(separator: ", ")) in \(depths.values.max() ?? 0) layers, "
                        + (model.parameters.contains { $0.leaf == "bias" } ? "with biases" : "without biases"))
            }
            return chosen.map { .train($0.path, shape: $0.shape) }
        }
    }
}

/// Selects layers by index, or by position from either end of their stack.
struct LayerFilter {
    private enum Choice { case all, first(Int), last(Int), numbers(Set<Int>) }
    private let choice: Choice

    init(_ text: String) throws {
        let trimmed = text.filter { $0 != " " }
        func wrong() -> PEFTError {
            PEFTError("'\(text)' is not a layer selection", remedy: "use first:2, last:2, or indices such as 0-3,7")
        }
        if trimmed.isEmpty {
            choice = .all
        } else if trimmed.hasPrefix("first:") || trimmed.hasPrefix("last:") {
            guard let count = Int(trimmed.split(separator: ":").last ?? ""), count > 0 else { throw wrong() }
            choice = trimmed.hasPrefix("first:") ? .first(count) : .last(count)
        } else {
            var numbers: Set<Int> = []
            for part in trimmed.split(separator: ",") {
                let ends = part.split(separator: "-").map { Int($0) }
                guard let low = ends.first ?? nil, let high = ends.last ?? nil, ends.count <= 2, low <= high,
                    high - low < 100_000
                else { throw wrong() }
                numbers.formUnion(low...high)
            }
            choice = .numbers(numbers)
        }
    }

    /// The path of the module list that contains a parameter's layer: `encoder.block` of `encoder.block.3.layer.0.…`.
    private static func stack(of path: String) -> String? {
        let parts = path.split(separator: ".")
        guard let index = parts.firstIndex(where: { Int($0) != nil }) else { return nil }
        return parts[..<index].joined(separator: ".")
    }

    /// Number of layers of each stack.
    static func depths(_ model: ModelOutline) -> [String: Int] {
        model.parameters.reduce(into: [:]) { depths, parameter in
            guard let stack = stack(of: parameter.path), let layer = parameter.layer else { return }
            depths[stack] = max(depths[stack] ?? 0, layer + 1)
        }
    }

    func contains(_ parameter: ModelOutline.ParameterSite, depths: [String: Int]) -> Bool {
        if case .all = choice { return true }
        guard let layer = parameter.layer, let depth = Self.stack(of: parameter.path).flatMap({ depths[$0] }) else {
            return false
        }
        return switch choice {
        case .all: true
        case .first(let count): layer < count
        case .last(let count): layer >= depth - count
        case .numbers(let numbers): numbers.contains(layer)
        }
    }
}
