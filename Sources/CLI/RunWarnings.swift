import PEFT
import Support
import Training

/// Settings that are allowed and surely not meant: a line each on standard error.
enum RunWarnings {
    /// A warm-up that the run doesn't outlast.
    static func warmup(_ configuration: TrainingConfiguration, totalSteps: Int) -> String? {
        let steps = Int(min(configuration.warmup, 1e15))
        guard configuration.warmup >= 1, steps >= totalSteps else { return nil }
        return "--warmup is \(counted(steps, "step")) and the run has \(counted(totalSteps, "step")); "
            + "the learning rate never reaches its peak"
    }

    /// Layer numbers that the model doesn't have.
    static func layers(_ choice: MethodChoice, _ outline: ModelOutline) -> String? {
        let field = choice.configuration.named["layers"]
        let wanted = field?.array?.compactMap(\.int) ?? field?.int.map { [$0] } ?? []
        let numbers = outline.linears.compactMap { site in
            site.path.split(separator: ".").lazy.compactMap { Int($0) }.first
        }
        guard let last = numbers.max() else { return nil }
        let beyond = wanted.filter { $0 > last || $0 < 0 }
        guard let first = beyond.first else { return nil }
        let names =
            beyond.count == 1 ? "layer \(first), which" : "\(counted(beyond.count, "layer")) from \(first) on that"
        return "--layers names \(names) this \(outline.family) model doesn't have; its layers are 0 to \(last)"
    }

    static func show(_ warnings: String?...) { warnings.compactMap(\.self).forEach(Console.warn) }
}
