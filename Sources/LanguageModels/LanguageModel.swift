import Support
import Torch
import TorchNN

/// A row of token ids with what it is to become.
public struct TrainingRow: Sendable, Equatable {
    /// What the model reads, special tokens included.
    public var input: [Int]
    /// What it is to write; the numbers of the row's classes; or the class of each token, −100 for none.
    public var target: [Int]
    /// Which text of a pair each token belongs to; empty if all belong to the first.
    public var segments: [Int]
    /// The number that the row is to get (regression), or that its similarity to its first candidate is to have.
    public var score: Double?
    /// Texts that the row is compared with (embeddings): the one that belongs to it, then hard negatives.
    public var candidates: [[Int]]

    public init(
        input: [Int], target: [Int] = [], segments: [Int] = [], score: Double? = nil, candidates: [[Int]] = []
    ) {
        (self.input, self.target, self.segments) = (input, target, segments)
        (self.score, self.candidates) = (score, candidates)
    }
}

/// Rows ready to train on.
public struct TrainingBatch {
    /// What the model reads: the encoder's input, or a decoder-only model's whole rows.
    public let input: PackedSequences
    /// A decoder's input in an encoder-decoder, shifted right.
    public let decoder: PackedSequences?
    /// The tokens to predict, int64 [targets], for every decoder position; the classes or numbers of the rows, or the
    /// classes of the labelled tokens, in a model with a head.
    public let targets: Tensor
    /// In a decoder-only model the positions of ``input`` whose output predicts a target, and in one that classifies
    /// tokens those with a label, int64 [targets].
    public let positions: Tensor?
    /// Which text of a pair each token of ``input`` belongs to (BERT's token types); `nil` if all belong to the first.
    public let segments: [Int]?
    /// The same as ``positions``, in a decoder-only model, as the last tokens of each row.
    public let outputs: OutputSpans?

    public init(
        input: PackedSequences, decoder: PackedSequences?, targets: Tensor, positions: Tensor? = nil,
        segments: [Int]? = nil, outputs: OutputSpans? = nil
    ) {
        (self.input, self.decoder, self.targets, self.positions) = (input, decoder, targets, positions)
        (self.segments, self.outputs) = (segments, outputs)
    }

    /// Tokens that bear loss.
    public var targetCount: Int { targets.count }
    /// All tokens the model reads; there is no padding among them.
    public var tokenCount: Int { input.tokens + (decoder?.tokens ?? 0) }
}

/// The last tokens of each row, from the first one on whose output is read.
public struct OutputSpans {
    /// Of each row, counted over all rows' tokens.
    public let spans: [Range<Int>]
    /// Which of these tokens' outputs are read, int64; `nil` for all.
    public let kept: Tensor?

    public init(_ spans: [Range<Int>], kept: Tensor? = nil) { (self.spans, self.kept) = (spans, kept) }
}

/// How a model reads and writes.
public enum Architecture: String, Sendable {
    case encoderDecoder, decoder, encoder
}

/// A model of some family, its parameters named as in Hugging Face's checkpoints.
public protocol LanguageModel: Module {
    /// `model_type` in `config.json`.
    var family: String { get }
    var architecture: Architecture { get }
    /// What its outputs are.
    var head: ModelHead { get }
    /// `config.json` as it was read, so that saving loses no key.
    var configuration: JSON { get }
    /// Path of the projection onto the vocabulary or the classes, empty where there is none, which methods leave alone unless it is named.
    var outputLayer: String { get }
    /// Paths of modules that begin untrained, such as a classifier: every method trains them too.
    var newModules: [String] { get }
    /// Last parts of the paths of projections that stay as they are when others are kept in fewer bits.
    var unquantisedProjections: Set<String> { get }
    /// Path of the table of input embeddings.
    var inputEmbedding: String { get }
    /// Tokens that the table of input embeddings holds.
    var vocabularySize: Int { get }
    /// Tokens that a row may have, virtual ones included, where positions are looked up in a table; `nil` where they don't
    /// end.
    var positionLimit: Int? { get }
    /// Virtual tokens that active adapters put before each of so many rows, and that take up positions.
    func virtualTokens(forRows rows: Int) -> [Int]
    /// What the files beside the weights say about how the model is used.
    var folderSettings: FolderSettings { get set }
    /// Names that other checkpoints use for tensors that this model holds once.
    var aliases: [String: String] { get }
    /// The path that a checkpoint's name means.
    func canonicalName(_ name: String) -> String
    /// Whether a checkpoint may hold such a tensor though the model has none.
    func isIgnorable(_ name: String) -> Bool
    /// The deviation of a parameter's normal initial values where a checkpoint may lack it (0 for zeros); `nil` where
    /// it has to be there.
    func initialDeviation(of path: String) -> Double?
    /// What lies side by side in a projection's output, in order; `nil` where it is one thing.
    func fusedParts(of path: String) -> [FusedPart]?
    /// What vectors of the table of input embeddings are multiplied by.
    var embeddingScale: Double { get }
    /// Makes training rows from token ids.
    func batch(_ rows: [(input: [Int], target: [Int])], device: Device) -> TrainingBatch
    /// The same for rows with more than ids.
    func batch(_ rows: [TrainingRow], device: Device) -> TrainingBatch
    /// Sum over target tokens of −log p(target), in nats; a scalar.
    func lossSum(_ batch: TrainingBatch, labelSmoothing: Double) -> Tensor
    /// Scores of every target position, [targets, vocabulary]; for checks, as training never makes them.
    func logits(_ batch: TrainingBatch) -> Tensor
    /// What generation needs to know of the configuration.
    var generationDefaults: GenerationDefaults { get }
    /// Reads prompts and prepares to generate up to `capacity` tokens for each, `beams` continuations a row.
    func startDecoding(_ prompts: PackedSequences, capacity: Int, beams: Int) -> any DecodingState
}

/// One of several projections that are computed as one.
public struct FusedPart: Sendable, Equatable {
    /// What users call it: q, k, v, gate, up.
    public let name: String
    /// Outputs.
    public let size: Int

    public init(name: String, size: Int) { (self.name, self.size) = (name, size) }
}

public struct GenerationDefaults: Sendable {
    /// The token that a decoder starts with; `nil` for a decoder-only model.
    public var startToken: Int?
    public var endTokens: Set<Int>
    public var padToken: Int

    public init(startToken: Int?, endTokens: Set<Int>, padToken: Int) {
        (self.startToken, self.endTokens, self.padToken) = (startToken, endTokens, padToken)
    }
}

/// Generation in progress: caches for `rows` prompts of `beams` continuations each.
public protocol DecodingState: AnyObject {
    /// Feeds one token per continuation, [rows · beams].
    /// - Returns: scores of the next token, [rows · beams, vocabulary].
    func step(_ tokens: Tensor) -> Tensor
    /// Continuation i becomes what `sources[i]` was, within its prompt; int64 [rows · beams].
    func reorder(_ sources: Tensor)
    /// Keeps these prompts, in this order.
    func keep(rows: [Int])
}

extension LanguageModel {
    public var head: ModelHead { ModelHead(task: architecture == .encoderDecoder ? .sequenceToSequence : .causalLM) }
    /// Whether its output is text.
    public var writes: Bool { head.task.writes }
    public func batch(_ rows: [TrainingRow], device: Device) -> TrainingBatch {
        batch(rows.map { ($0.input, $0.target) }, device: device)
    }
    public var newModules: [String] { [] }
    public var unquantisedProjections: Set<String> { [] }
    public func virtualTokens(forRows rows: Int) -> [Int] { Array(repeating: 0, count: rows) }
    public func canonicalName(_ name: String) -> String { aliases[name] ?? name }
    public func isIgnorable(_ name: String) -> Bool { false }
    public func initialDeviation(of path: String) -> Double? { nil }
    public func fusedParts(of path: String) -> [FusedPart]? { nil }
    public var embeddingScale: Double { 1 }
    /// Runs a forward pass in the model's precision.
    public func computing<Result>(_ body: () throws -> Result) rethrows -> Result {
        guard let precision else { return try body() }
        return try MixedPrecision.run(precision.type, on: precision.device, body)
    }
    /// Where the parameters lie and how they are computed with.
    public var device: Device { firstParameter()?.tensor.device ?? .cpu }
    public var byteCount: Int { parameters().reduce(0) { $0 + $1.parameter.tensor.byteCount } }
}
