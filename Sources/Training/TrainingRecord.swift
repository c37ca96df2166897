import Foundation
import LanguageModels
import PEFTSupport

/// The contents of `training.json` beside a trained adapter or model: everything needed to use it as it was trained, and
/// to reproduce the training.
public struct TrainingRecord: Codable, Sendable {
    package static let fileName = "training.json"

    package var version: String
    /// The base model as named by the user.
    package var model: String
    package var method: String
    package var methodFields: [String: JSON]
    /// Templates of prompt and target, to be used by evaluations as well.
    package var prompt: String
    package var target: String
    package var maxInputTokens: Int
    package var data: String
    package var trainingRows: Int
    package var validationRows: Int
    /// Fraction of the data held out for validation, with the seed of the configuration.
    package var validationSplit: Double?
    package var configuration: TrainingConfiguration
    package var trainable: Int
    package var total: Int
    package var history: TrainingHistory
    package var tokensPerSecond: Double
    package var seconds: Double
    package var peakBytes: Int?
    /// Number of processes that trained together, if several.
    package var processes: Int?
    /// The loss on general text, if forgetting was measured.
    package var retention: RetentionResult?
    /// The classes of a model with a head, in the order of its outputs.
    package var labels: [String]?
    /// Task, labels and pooling of a model with a head.
    package var head: ModelHead?
    /// Templates of the further texts of an example.
    package var pair: String?
    package var negative: String?
    /// Languages of prompts and targets, or templates of them, if they were chosen.
    package var sourceLanguage: String?
    package var targetLanguage: String?
    /// Chat settings, if the model was trained on conversations.
    package var chat: ChatSettings?
    /// Weight format of the base model's projections, one of ``WeightStorage/names``; `nil` for that of its files.
    package var weights: String?
    /// Weight format of the embedding table and the output layer, if one was chosen.
    package var embeddingWeights: String?
    /// How the run was started. Records of earlier versions lack it.
    package var origin: RunOrigin?

    package init(
        model: String, method: String, methodFields: [String: JSON], prompt: String, target: String,
        maxInputTokens: Int, data: String, trainingRows: Int, validationRows: Int,
        configuration: TrainingConfiguration, trainable: Int, total: Int, result: TrainingResult,
        retention: RetentionResult? = nil
    ) {
        version = Version.current
        (self.model, self.method, self.methodFields) = (model, method, methodFields)
        (self.prompt, self.target, self.maxInputTokens) = (prompt, target, maxInputTokens)
        (self.data, self.trainingRows, self.validationRows) = (data, trainingRows, validationRows)
        (self.configuration, self.trainable, self.total) = (configuration, trainable, total)
        (history, tokensPerSecond) = (result.history, result.tokensPerSecond)
        (seconds, peakBytes) = (result.seconds, result.peakBytes)
        self.retention = retention
    }

    /// The head that the model was trained with; `nil` if it generates text.
    package var trainedHead: ModelHead? { head ?? labels.map { ModelHead(task: .classification, labels: $0) } }

    package var baseStorage: WeightStorage? { weights.flatMap { try? WeightStorage($0) } }
    package var embeddingStorage: WeightStorage? { embeddingWeights.flatMap { try? WeightStorage($0) } }

    /// Writes `training.json` into an existing folder.
    package func write(into folder: URL) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        try AtomicFile.write(encoder.encode(self), to: folder.appendingPathComponent(Self.fileName))
    }

    /// - Returns: `nil` if there is none, as in folders written by other tools.
    /// - Throws: ``PEFTError`` if the file is damaged.
    public static func read(in folder: URL) throws -> TrainingRecord? {
        let file = folder.appendingPathComponent(fileName)
        guard let data = try? Data(contentsOf: file) else { return nil }
        do { return try JSONDecoder().decode(TrainingRecord.self, from: data) } catch {
            throw PEFTError("\(file.path) is damaged", remedy: "remove it and pass --prompt and --target")
        }
    }
}
