import LanguageModels
import PEFTSupport

/// A configuration of a method that adapts projections by name and has LoRA's default targets.
package protocol TargetedConfiguration: BuiltInConfiguration {
    var selection: TargetSelection { get set }
}

extension ConfigurationDeclaration where Configuration: TargetedConfiguration {
    package static var fileDefaults: Configuration {
        var configuration = Configuration()
        configuration.selection.allowsUnusedTargets = true
        return configuration
    }
}

extension TargetedConfiguration {
    package func check() throws { try selection.validate() }

    /// The fields that select projections, as far as Hugging Face's configuration has them.
    static func selectionFields(hasExclusions: Bool = true, hasLayers: Bool = true) -> [ConfigurationField<Self>] {
        targetFields(\.selection).filter { hasExclusions || $0.key != "exclude_modules" }
            + (hasLayers ? layerFields(\.selection) : [])
    }
}

/// The implementation of a method with a ``TargetedConfiguration``.
package protocol TargetedMethod: PEFTMethod where Configuration: TargetedConfiguration {}

extension TargetedMethod {
    package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
        var configuration = configuration
        configuration.selection = configuration.selection.resolved(for: model)
        return configuration
    }

    /// The selected projections, in the model's order.
    static func sites(_ configuration: Configuration, in model: ModelOutline) throws -> [ModelOutline.LinearSite] {
        try resolved(configuration, for: model).selection.sites(in: model)
    }
}

extension MethodConfiguration {
    /// A field of numbers for matching modules.
    static func patternField(
        _ name: String, key: String, _ path: WritableKeyPath<Self, [String: Double]> & Sendable, help: String
    ) -> ConfigurationField<Self> {
        .init(name, key: key, .numbersByPattern, help: help) {
            .object($0[keyPath: path].mapValues { .wholeOr($0) })
        } write: {
            $0[keyPath: path] = try patterns($1)
        }
    }
}

extension TargetSelection {
    /// The count that the first matching pattern gives, or `usual`.
    static func count(for path: String, in patterns: [String: Double], usual: Int) throws -> Int {
        guard let value = try value(for: path, in: patterns) else { return usual }
        guard let count = Int(exactly: value), (1...1 << 30).contains(count) else {
            throw PEFTError("the value for '\(path)' is \(value)", remedy: "use an integer of at least 1")
        }
        return count
    }
}

/// Rejects a size that doesn't divide a projection's inputs or outputs.
func requireDivisor(
    _ size: Int, of site: ModelOutline.LinearSite, inputs: Bool = true, outputs: Bool = true, option: String
) throws {
    let sides = [(site.inputs, "inputs", inputs), (site.outputs, "outputs", outputs)]
    for (count, side, isNeeded) in sides where isNeeded && !count.isMultiple(of: size) {
        throw PEFTError(
            "the \(count) \(side) of \(site.path) aren't divisible by \(size)",
            remedy: "set --\(option) to a divisor of \(count)")
    }
}
