import PEFTSupport
import Torch
import TorchNN

/// A tokenized training example.
public struct TrainingRow: Sendable, Equatable {
    /// Token ids of the model's input, including special tokens.
    package var input: [Int]
    /// Target token ids; the example's class indices; or a class index per token, −100 for none.
    package var target: [Int]
    /// Token type ids of a pair of texts (BERT); empty if all are 0.
    package var segments: [Int]
    /// Regression target, or target similarity of the text to its first candidate.
    package var score: Double?
    /// For embeddings: texts to compare with, first the positive, then hard negatives.
    package var candidates: [[Int]]

    /// - Parameters:
    ///   - input: token ids of the input, with special tokens.
    ///   - target: token ids, classes, or a class index per token.
    ///   - segments: token type ids of a pair.
    ///   - score: regression target or similarity.
    ///   - candidates: texts to compare an embedding with.
    public init(
        input: [Int], target: [Int] = [], segments: [Int] = [], score: Double? = nil, candidates: [[Int]] = []
    ) {
        (self.input, self.target, self.segments) = (input, target, segments)
        (self.score, self.candidates) = (score, candidates)
    }
}

/// A batch of examples, ready for training.
public struct TrainingBatch {
    /// The encoder's input, or the whole sequences of a decoder-only model.
    package let input: PackedSequences
    /// The decoder's input in an encoder-decoder, shifted right.
    package let decoder: PackedSequences?
    /// Target token ids, int64 `[targets]`, for every decoder position. In a model with a head: the examples' classes
    /// or values, or the classes of the labeled tokens.
    package let targets: Tensor
    /// Positions in ``input`` whose outputs predict a target, int64 `[targets]`, in a decoder-only model; the labeled
    /// tokens in token classification.
    package let positions: Tensor?
    /// Token type ids of ``input`` (BERT); `nil` if all are 0.
    package let segments: [Int]?
    /// ``positions`` of a decoder-only model as trailing spans of the sequences.
    package let outputs: OutputSpans?

    package init(
        input: PackedSequences, decoder: PackedSequences?, targets: Tensor, positions: Tensor? = nil,
        segments: [Int]? = nil, outputs: OutputSpans? = nil
    ) {
        (self.input, self.decoder, self.targets, self.positions) = (input, decoder, targets, positions)
        (self.segments, self.outputs) = (segments, outputs)
    }

    /// Number of tokens that contribute to the loss.
    package var targetCount: Int { targets.count }
    /// Number of tokens that the model processes; there is no padding.
    package var tokenCount: Int { input.tokens + (decoder?.tokens ?? 0) }
}

/// The trailing tokens of each sequence whose outputs are read.
package struct OutputSpans {
    /// The span in each sequence, as indices into the packed tokens.
    package let spans: [Range<Int>]
    /// Indices within the spans of the outputs that are read, int64; `nil` for all.
    package let kept: Tensor?

    package init(_ spans: [Range<Int>], kept: Tensor? = nil) { (self.spans, self.kept) = (spans, kept) }
}

/// Encoder, decoder or both.
public enum Architecture: String, Sendable {
    case encoderDecoder, decoder, encoder
}

/// A language model whose parameters are named as in Hugging Face's checkpoints.
public protocol LanguageModel: Module {
    var modelFamily: ModelFamily { get }
    var architecture: Architecture { get }
    /// The model's head and task.
    var head: ModelHead { get }
    /// The original `config.json`, so that saving loses no key.
    var configuration: JSON { get }
    /// Path of the projection onto the vocabulary or the classes, empty if there is none; methods adapt it only if it
    /// is named.
    var outputLayer: String { get }
    /// Paths of modules without pretrained weights, such as a classification head; every method trains them too.
    var newModules: [String] { get }
    /// Path of the input embeddings.
    var inputEmbedding: String { get }
    /// Number of tokens in the input embeddings.
    var vocabularySize: Int { get }
    /// Maximum sequence length, including virtual tokens, if positions are embeddings; `nil` without a limit.
    var positionLimit: Int? { get }
    /// Virtual tokens that active adapters put before each sequence and that use up positions.
    func virtualTokens(forRows rows: Int) -> [Int]
    /// Settings stored in the files next to the weights.
    var folderSettings: FolderSettings { get set }
    /// Names that other checkpoints use for tensors that this model shares.
    var aliases: [String: String] { get }
    /// The model's path of a checkpoint's tensor name.
    func canonicalName(_ name: String) -> String
    /// Whether a checkpoint may contain such a tensor although the model has none.
    func isIgnorable(_ name: String) -> Bool
    /// Whether transformers reads tensors of a file that this model has once, under several names, as separate ones.
    var aliasesMayDiffer: Bool { get }
    /// Standard deviation of the normal initialization of a parameter that a checkpoint may lack (0 for zeros); `nil`
    /// if the parameter is required.
    func initialDeviation(of path: String) -> Double?
    /// Paths of tensors that are part of the files and never trained.
    var buffers: Set<String> { get }
    /// The parts of a fused projection's output, in order; `nil` if it isn't fused.
    func fusedParts(of path: String) -> [FusedPart]?
    /// Factor that the input embeddings are multiplied by.
    var embeddingScale: Double { get }
    /// Creates a training batch from token ids.
    func batch(_ rows: [(input: [Int], target: [Int])], device: Device) -> TrainingBatch
    /// Creates a training batch from tokenized examples.
    func batch(_ rows: [TrainingRow], device: Device) -> TrainingBatch
    /// Sum over target tokens of −log p(target), in nats; a scalar. Divide by ``TrainingBatch/targetCount`` for the
    /// mean loss.
    func lossSum(_ batch: TrainingBatch, labelSmoothing: Double) -> Tensor
    /// Logits of every target position, `[targets, vocabulary]`; for checks, as training never materializes them.
    func logits(_ batch: TrainingBatch) -> Tensor
    /// The configuration's generation defaults.
    var generationDefaults: GenerationDefaults { get }
    /// Prefills the prompts and prepares to generate up to `capacity` tokens each, with `beams` continuations per
    /// prompt.
    func startDecoding(_ prompts: PackedSequences, capacity: Int, beams: Int) -> any DecodingState
}

/// One part of a fused projection.
public struct FusedPart: Sendable, Equatable {
    /// User-visible name: q, k, v, gate, up.
    package let name: String
    /// Number of outputs.
    package let size: Int

    package init(name: String, size: Int) { (self.name, self.size) = (name, size) }
}

/// Generation defaults from a model's `config.json`.
public struct GenerationDefaults: Sendable {
    /// The token with which a decoder starts; `nil` for a decoder-only model.
    package var startToken: Int?
    package var endTokens: Set<Int>
    package var padToken: Int
    /// `forced_eos_token_id` in a `config.json` that is the only source of generation settings: families other than BART and
    /// some of its relatives have no such key there in transformers, which ignores it.
    package var forcedEndTokens: [Int]
    /// Whether the decoder's input in training begins with the last target token (mBART).
    package var startsWithLastToken = false

    package init(startToken: Int?, endTokens: Set<Int>, padToken: Int, forcedEndTokens: [Int] = []) {
        (self.startToken, self.endTokens, self.padToken) = (startToken, endTokens, padToken)
        self.forcedEndTokens = forcedEndTokens
    }
}

/// Generation state: KV caches for `rows` prompts with `beams` continuations each.
public protocol DecodingState: AnyObject {
    /// Decode step: feeds one token per continuation, int64 `[rows · beams]`.
    /// - Returns: logits of the next token, `[rows · beams, vocabulary]`.
    func step(_ tokens: Tensor) -> Tensor
    /// Replaces continuation i by `sources[i]` of the same prompt; int64 `[rows · beams]`.
    func reorder(_ sources: Tensor)
    /// Keeps only these prompts, in this order.
    func keep(rows: [Int])
}

extension LanguageModel {
    /// `model_type` in `config.json`.
    package var family: String { modelFamily.name }
    package var head: ModelHead { ModelHead(task: architecture == .encoderDecoder ? .sequenceToSequence : .causalLM) }
    /// Whether the model generates text.
    public var generates: Bool { head.task.generates }
    package func batch(_ rows: [TrainingRow], device: Device) -> TrainingBatch {
        batch(rows.map { ($0.input, $0.target) }, device: device)
    }
    package var newModules: [String] { [] }
    package func virtualTokens(forRows rows: Int) -> [Int] { Array(repeating: 0, count: rows) }
    package func canonicalName(_ name: String) -> String { aliases[name] ?? name }
    package func isIgnorable(_ name: String) -> Bool { false }
    package var aliasesMayDiffer: Bool { false }
    package func initialDeviation(of path: String) -> Double? { nil }
    package var buffers: Set<String> { [] }
    package func fusedParts(of path: String) -> [FusedPart]? { nil }
    package var embeddingScale: Double { 1 }
    /// Runs a forward pass with autocast to the model's precision.
    public func computing<Result>(_ body: () throws -> Result) rethrows -> Result {
        guard let precision else { return try body() }
        return try MixedPrecision.run(precision.type, on: precision.device, body)
    }
    /// The device of the parameters.
    public var device: Device { firstParameter()?.tensor.device ?? .cpu }
    /// Size of all parameters in bytes.
    package var byteCount: Int { parameters().reduce(0) { $0 + $1.parameter.tensor.byteCount } }
}
