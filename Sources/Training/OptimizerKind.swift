import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import TorchNN

extension TrainingConfiguration {
    /// The optimizer, by the name that `--optimizer` takes.
    public enum OptimizerKind: String, CaseIterable, Codable, Sendable {
        /// AdamW (Loshchilov & Hutter 2019).
        case adamw
        /// AdamW with 8-bit states (Dettmers et al. 2022).
        case adamw8bit
        /// Adafactor (Shazeer & Stern 2018).
        case adafactor
        /// Lion (Chen et al. 2023).
        case lion
        /// Muon for hidden matrices (Jordan et al. 2024), and AdamW for the rest.
        case muon
        /// Schedule-free AdamW (Defazio et al. 2024): the learning rate is constant after the warm-up.
        case scheduleFree = "schedule-free"
        /// LoRA-FA (Zhang et al. 2023): LoRA's A is frozen.
        case loraFA = "lora-fa"
        /// GaLore (Zhao et al. 2024): low-rank moments for hidden matrices, and AdamW for the rest.
        case gaLore = "galore"
        /// APOLLO (Zhu et al. 2024): scaled gradients for hidden matrices, and AdamW for the rest.
        case apollo
        /// APOLLO-Mini: APOLLO of rank 1 with one factor per tensor.
        case apolloMini = "apollo-mini"

        /// The names of all optimizers.
        package static var list: String { allCases.map(\.rawValue).joined(separator: ", ") }

        /// Factor of a method's default learning rate, which is AdamW's: updates of Lion have the size of the learning
        /// rate in every element, and the paper uses rates 3 to 10 times lower.
        package var defaultRateFactor: Double { self == .lion ? 0.1 : 1 }
    }

    /// An option of an optimizer, as in `galore(rank=64)`.
    struct OptimizerOption {
        let name: String
        let standard: Double
        let range: ClosedRange<Double>
        var isInteger = false
    }

    /// The options of the optimizer.
    static func options(of kind: OptimizerKind) -> [OptimizerOption] {
        let beta1 = OptimizerOption(name: "beta1", standard: 0.9, range: 0...0.9999)
        let beta2 = OptimizerOption(name: "beta2", standard: 0.999, range: 0...0.99999)
        let adam = [beta1, beta2, OptimizerOption(name: "epsilon", standard: 1e-8, range: 0...1)]
        func lowRank(rank: Double, gap: Double, scale: Double) -> [OptimizerOption] {
            [
                OptimizerOption(name: "rank", standard: rank, range: 1...65536, isInteger: true),
                OptimizerOption(name: "gap", standard: gap, range: 1...1e9, isInteger: true),
                OptimizerOption(name: "scale", standard: scale, range: 1e-6...1e6),
            ]
        }
        return switch kind {
        case .adamw, .adamw8bit, .loraFA: adam
        case .scheduleFree: [OptimizerOption(name: "beta1", standard: 0.9, range: 0.01...0.9999)] + adam.dropFirst()
        case .adafactor: []
        case .lion: [beta1, OptimizerOption(name: "beta2", standard: 0.99, range: 0...0.99999)]
        case .muon:
            [
                OptimizerOption(name: "momentum", standard: 0.95, range: 0...0.9999),
                OptimizerOption(name: "nesterov", standard: 1, range: 0...1, isInteger: true),
                OptimizerOption(name: "iterations", standard: 5, range: 1...99, isInteger: true),
                OptimizerOption(name: "match-rms", standard: 1, range: 0...1, isInteger: true),
            ] + adam
        case .gaLore: lowRank(rank: 128, gap: 200, scale: 0.25) + adam
        case .apollo: lowRank(rank: 128, gap: 200, scale: 1) + adam
        case .apolloMini: lowRank(rank: 1, gap: 200, scale: 128) + adam
        }
    }

    /// The optimizer with its options as `--optimizer` takes it, such as `galore(rank=64)`.
    package var optimizerText: String {
        let options = (optimizerOptions ?? [:]).sorted { $0.key < $1.key }
        guard !options.isEmpty else { return optimizer.rawValue }
        return optimizer.rawValue + "(" + options.map { "\($0.key)=\(Self.text($0.value))" }.joined(separator: ",")
            + ")"
    }

    private static func text(_ value: Double) -> String { Int(exactly: value).map(String.init) ?? "\(value)" }

    /// Sets the optimizer and its options from text such as `galore(rank=64,scale=0.5)`.
    /// - Throws: ``PEFTError`` for an unknown name or option, or a value that is out of range.
    package mutating func setOptimizer(_ text: String) throws {
        let parts = text.split(separator: "(", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        let name = parts[0].trimmingCharacters(in: .whitespaces).lowercased()
        guard let kind = OptimizerKind(rawValue: name) else {
            let near = nearestName(to: name, in: OptimizerKind.allCases.map(\.rawValue))
            throw PEFTError(
                "unknown optimizer '\(name)'",
                remedy: near.map { "did you mean '\($0)'?" } ?? "use one of \(OptimizerKind.list)")
        }
        var options: [String: Double] = [:]
        if parts.count == 2 {
            guard parts[1].hasSuffix(")") else {
                throw PEFTError(
                    "--optimizer \(text) lacks a closing parenthesis", remedy: "write it as \(name)(option=value)")
            }
            for part in parts[1].dropLast().split(separator: ",") {
                let pair = part.split(separator: "=", maxSplits: 1).map { $0.trimmingCharacters(in: .whitespaces) }
                guard pair.count == 2, let value = Double(pair[1]) else {
                    throw PEFTError(
                        "'\(part)' in --optimizer \(text) is not an option with a number",
                        remedy: "write it as \(name)(option=value)")
                }
                options[pair[0]] = value
            }
        }
        (optimizer, optimizerOptions) = (kind, options.isEmpty ? nil : options)
        try checkOptimizer()
    }

    func checkOptimizer() throws {
        let known = Self.options(of: optimizer)
        for (name, value) in (optimizerOptions ?? [:]).sorted(by: { $0.key < $1.key }) {
            guard let option = known.first(where: { $0.name == name }) else {
                throw PEFTError(
                    "the optimizer \(optimizer.rawValue) has no option '\(name)'",
                    remedy: known.isEmpty ? "remove it" : "use one of \(known.map(\.name).joined(separator: ", "))")
            }
            guard option.range.contains(value), !option.isInteger || value == value.rounded() else {
                let (low, high) = (Self.text(option.range.lowerBound), Self.text(option.range.upperBound))
                throw PEFTError(
                    "the option \(name) of \(optimizer.rawValue) must be \(option.isInteger ? "an integer " : "")in \(low) … \(high) (got \(Self.text(value)))"
                )
            }
        }
        switch optimizer {
        case .adamw, .adamw8bit, .lion, .muon, .scheduleFree: break
        default:
            guard !memory.pagesOptimizer else {
                throw PEFTError(
                    "the state of \(optimizer.rawValue) can't be paged",
                    remedy: "omit --page-optimizer, or use --optimizer adamw")
            }
        }
    }

    /// Checks that the optimizer fits what the adapter trains.
    /// - Throws: ``PEFTError`` if it doesn't.
    package func checkOptimizer(for adapter: Adapter) throws {
        if optimizer == .loraFA { _ = try adapter.loraFactors() }
        if optimizer == .scheduleFree, let schedule = adapter.trainingHook(), schedule.changesParameters {
            throw PEFTError(
                "\(adapter.choice.label) changes its parameters between steps, which schedule-free averages would undo",
                remedy: "use another --optimizer")
        }
    }

    /// Freezes what the optimizer doesn't train.
    package func freeze(_ adapter: Adapter) {
        guard optimizer == .loraFA else { return }
        for factors in (try? adapter.loraFactors()) ?? [] { factors.a.tensor.requiresGrad = false }
    }

    package func makeOptimizer(_ adapter: Adapter) -> any Optimizer {
        let parameters = adapter.parameters
        let factors = adapter.rateFactors(head: headLearningRate.map { $0 / learningRate } ?? 1)
        let storage = memory.pagesOptimizer ? StateStorage.file : .memory
        let standard = Dictionary(uniqueKeysWithValues: Self.options(of: optimizer).map { ($0.name, $0.standard) })
        func option(_ name: String) -> Double { optimizerOptions?[name] ?? standard[name] ?? 0 }
        let (beta1, beta2, epsilon) = (option("beta1"), option("beta2"), option("epsilon"))
        let settings = AdamSettings(beta1: beta1, beta2: beta2, epsilon: epsilon, weightDecay: weightDecay)
        func lowRank(_ rule: LowRankAdamW.Rule) -> LowRankAdamW {
            LowRankAdamW(
                parameters, isMatrix: adapter.areHiddenMatrices, rule: rule, rank: Int(option("rank")),
                gap: Int(option("gap")), rateFactors: factors, settings: settings)
        }
        switch optimizer {
        case .adamw:
            return AdamW(
                parameters, rateFactors: factors, beta1: beta1, beta2: beta2, epsilon: epsilon,
                weightDecay: weightDecay, storage: storage)
        case .adamw8bit:
            return AdamW8bit(
                parameters, rateFactors: factors, beta1: beta1, beta2: beta2, epsilon: epsilon,
                weightDecay: weightDecay, storage: storage)
        case .adafactor: return Adafactor(parameters, rateFactors: factors, weightDecay: weightDecay)
        case .lion:
            return Lion(
                parameters, rateFactors: factors, beta1: beta1, beta2: beta2, weightDecay: weightDecay,
                storage: storage)
        case .muon:
            return Muon(
                parameters, isMatrix: adapter.areHiddenMatrices, rateFactors: factors, momentum: option("momentum"),
                isNesterov: option("nesterov") == 1, iterations: Int(option("iterations")),
                matchesRMS: option("match-rms") == 1, beta1: beta1, beta2: beta2, epsilon: epsilon,
                weightDecay: weightDecay, storage: storage)
        case .scheduleFree:
            return ScheduleFreeAdamW(
                parameters, rateFactors: factors, beta1: beta1, beta2: beta2, epsilon: epsilon,
                weightDecay: weightDecay, storage: storage)
        case .loraFA:
            return LoRAFA(
                parameters, factors: (try? adapter.loraFactors()) ?? [], rateFactors: factors, settings: settings)
        case .gaLore: return lowRank(.gaLore(scale: option("scale")))
        case .apollo: return lowRank(.apollo(scale: option("scale"), perTensor: false))
        case .apolloMini: return lowRank(.apollo(scale: option("scale"), perTensor: true))
        }
    }
}
