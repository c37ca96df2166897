import Foundation
import LanguageModels
import Support

/// What `training.json` beside a trained adapter or model says: enough to use it as it was trained, and to repeat
/// the training.
public struct TrainingRecord: Codable, Sendable {
    public static let fileName = "training.json"

    public var version: String
    /// Model as it was named.
    public var model: String
    public var method: String
    public var methodFields: [String: JSON]
    /// Templates: an evaluation that renders rows in another way measures something else.
    public var prompt: String
    public var target: String
    public var maxInputTokens: Int
    public var data: String
    public var trainingRows: Int
    public var validationRows: Int
    /// The share of the data that was held out for validation, by the seed of the configuration.
    public var validationSplit: Double?
    public var configuration: TrainingConfiguration
    public var trainable: Int
    public var total: Int
    public var history: TrainingHistory
    public var tokensPerSecond: Double
    public var seconds: Double
    public var peakBytes: Int?
    /// The loss on general text, where forgetting was measured.
    public var retention: RetentionResult?
    /// The classes of a model with a head, in the order of its outputs.
    public var labels: [String]?
    /// The task, with what belongs to it, of a model with a head.
    public var head: ModelHead?
    /// Templates of the further texts of a row.
    public var pair: String?
    public var negative: String?
    /// How rows became conversations, where the model was trained on chats.
    public var chat: ChatSettings?
    /// How the base's projections were kept, one of ``WeightStorage/names``; `nil` for as they are stored.
    public var weights: String?
    /// The same of the embedding table and the output layer, where it was asked for.
    public var embeddingWeights: String?

    public init(
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

    /// The head that the model was trained with; `nil` if it writes.
    public var trainedHead: ModelHead? { head ?? labels.map { ModelHead(task: .classification, labels: $0) } }

    public var baseStorage: WeightStorage? { weights.flatMap { try? WeightStorage($0) } }
    public var embeddingStorage: WeightStorage? { embeddingWeights.flatMap { try? WeightStorage($0) } }

    /// Writes `training.json` into a folder that exists.
    public func write(into folder: URL) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        try AtomicFile.write(encoder.encode(self), to: folder.appendingPathComponent(Self.fileName))
    }

    /// - Returns: `nil` where there is none, as in folders that other tools wrote.
    /// - Throws: ``PEFTError`` if the file is damaged.
    public static func read(in folder: URL) throws -> TrainingRecord? {
        let file = folder.appendingPathComponent(fileName)
        guard let data = try? Data(contentsOf: file) else { return nil }
        do { return try JSONDecoder().decode(TrainingRecord.self, from: data) } catch {
            throw PEFTError("\(file.path) is damaged", remedy: "remove it and pass --prompt and --target")
        }
    }
}
