import Foundation
import LanguageModels
import PEFT
import Torch
import Training

/// The methods and settings of a comparison.
public struct ComparisonPlan: Sendable {
    /// A method to compare, or the base model without training.
    public struct Method: Sendable {
        /// `nil` for the untrained base model.
        public var choice: MethodChoice?
        /// `nil` to search it on the validation examples.
        public var learningRate: Double?
        /// Whether the method is skipped, with the reason, if it doesn't fit the model.
        package var isOptional: Bool
        /// Added to the seed of the initial values, so that methods start from different ones.
        package var seedOffset: UInt64
        /// Weight format of this method's base model; `nil` for that of the model's folder or of the method.
        package var weights: WeightRounding?

        /// - Parameters:
        ///   - choice: the method; `nil` for the base model.
        ///   - learningRate: its learning rate; `nil` searches for one.
        public init(choice: MethodChoice?, learningRate: Double? = nil) {
            self.init(choice: choice, learningRate: learningRate, isOptional: false)
        }

        package init(
            choice: MethodChoice?, learningRate: Double? = nil, isOptional: Bool, seedOffset: UInt64 = 0,
            weights: WeightRounding? = nil
        ) {
            (self.choice, self.learningRate, self.isOptional) = (choice, learningRate, isOptional)
            (self.seedOffset, self.weights) = (seedOffset, weights)
        }

        /// The method's name; `base` for the base model.
        public var name: String { choice?.method.name ?? "base" }
        /// The method's name in reports, with its main options.
        public var label: String {
            guard let weights else { return choice?.label ?? "base" }
            return choice.map { "\($0.label) over \(weights.name)" } ?? "base in \(weights.name)"
        }
    }

    /// The methods, in the order of the report.
    public var methods: [Method]
    /// Weight formats that each model is quantized to after training, with its adapter merged, and evaluated in.
    package var quantizeAfter: [WeightRounding] = []
    /// Model-free baselines, shown beside the methods.
    public var baselines: [Baseline] = []
    /// Training examples for GPTQ calibration.
    package var calibrationRows = 128
    /// Number of runs per method, each with a seed of its own.
    public var seeds: Int
    /// Settings of every run; the learning rate is each method's.
    public var training: TrainingConfiguration
    /// Settings of the generated outputs.
    public var generation: GenerateParameters
    /// Length in tokens to which inputs are truncated.
    public var maxInputTokens: Int
    /// Generation batch size.
    package var evaluationBatchSize: Int
    /// Length of a learning-rate trial as a fraction of a run's steps.
    package var trialShare: Double
    /// Number of test examples whose outputs the report shows.
    package var sampleRows: Int
    /// Whether methods that can't win are left out after shortened runs (``Elimination``).
    package var eliminates = false
    /// Seconds that the comparison may take; methods that don't fit are skipped.
    package var budget: Double?
    /// General text for measuring forgetting.
    package var retain: URL?
    /// Where the model is trained.
    public var device: Device

    /// - Parameters:
    ///   - methods: the methods, in the order of the report.
    ///   - seeds: runs per method.
    ///   - training: settings of each run; a method's own learning rate takes precedence.
    ///   - generation: settings of the texts that are scored.
    ///   - maxInputTokens: maximum number of tokens of a prompt.
    ///   - evaluationBatchSize: prompts per batch in evaluation.
    ///   - trialShare: length of a trial of the learning-rate search, as a share of a run.
    ///   - sampleRows: test examples whose outputs the report shows.
    ///   - retain: a text file whose loss is measured before and after training.
    ///   - device: where the model is trained.
    public init(
        methods: [Method], seeds: Int = 1, training: TrainingConfiguration = .init(),
        generation: GenerateParameters = .init(), maxInputTokens: Int = 512, evaluationBatchSize: Int = 16,
        trialShare: Double = 0.25, sampleRows: Int = 3, retain: URL? = nil, device: Device = .cpu
    ) {
        (self.retain, self.device) = (retain, device)
        (self.methods, self.seeds, self.training, self.generation) = (methods, seeds, training, generation)
        (self.maxInputTokens, self.evaluationBatchSize) = (maxInputTokens, evaluationBatchSize)
        (self.trialShare, self.sampleRows) = (trialShare, sampleRows)
    }
}
