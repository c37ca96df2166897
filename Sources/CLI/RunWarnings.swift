import PEFT
import PEFTSupport
import Training

/// Warnings about settings that are valid but probably a mistake, one line each on standard error.
enum RunWarnings {
    /// Warm-up of at least as many steps as the run.
    static func warmup(_ configuration: TrainingConfiguration, totalSteps: Int) -> String? {
        let steps = Int(min(configuration.warmup, 1e15))
        guard configuration.warmup >= 1, steps >= totalSteps else { return nil }
        return "--warmup is \(counted(steps, "step")) but the run has \(counted(totalSteps, "step")); "
            + "the learning rate never reaches its peak"
    }

    /// Layer numbers beyond the model's last layer.
    static func layers(_ choice: MethodChoice, _ outline: ModelOutline) -> String? {
        let field = choice.configuration.named["layers"]
        let selected = field?.array?.compactMap(\.int) ?? field?.int.map { [$0] } ?? []
        let numbers = outline.linears.compactMap { site in
            site.path.split(separator: ".").lazy.compactMap { Int($0) }.first
        }
        guard let last = numbers.max() else { return nil }
        let beyond = selected.filter { $0 > last || $0 < 0 }
        guard let first = beyond.first else { return nil }
        let names =
            beyond.count == 1 ? "layer \(first), which" : "\(beyond.count) layers from \(first) on, which"
        return "--layers names \(names) this \(outline.family) model doesn't have; its layers are 0 to \(last)"
    }

    static func show(_ warnings: String?...) { warnings.compactMap(\.self).forEach(Console.warn) }
}
