import LanguageModels
import PEFTTokenizers
import Torch

/// A request in the engine.
final class Job {
    let id: Int
    let request: GenerationRequest
    let settings: GenerationSettings
    let constraint: JSONConstraint?
    /// Maximum and minimum number of new tokens per choice.
    let most: Int
    let least: Int
    let submitted = ContinuousClock.now
    private let continuation: AsyncStream<GenerationEvent>.Continuation
    /// Number of choices that run.
    var open = 0
    var completionTokens = 0
    /// Number of prompt tokens whose keys and values were known.
    var cachedTokens = 0
    var hasFirstToken = false

    init(
        id: Int, _ request: GenerationRequest, _ settings: GenerationSettings, _ constraint: JSONConstraint?,
        most: Int,
        least: Int, _ continuation: AsyncStream<GenerationEvent>.Continuation
    ) {
        (self.id, self.request, self.settings, self.continuation) = (id, request, settings, continuation)
        (self.constraint, self.most, self.least) = (constraint, most, least)
    }

    func send(_ event: GenerationEvent) { continuation.yield(event) }

    func end(_ event: GenerationEvent) {
        continuation.yield(event)
        abandon()
    }

    /// Ends the stream after the client left.
    func abandon() {
        continuation.finish()
        request.onTokens?(completionTokens)
    }
}

/// One running sequence: a choice of a request.
final class Choice {
    let job: Job
    let index: Int
    let adapter: LoadedAdapter?
    /// Reserved KV memory.
    let bytes: Int
    var sequence: CachedSequence
    /// Tokens that the model has not read yet: the prompt's rest, or the last generated token.
    var pending: [Int]
    /// Whether it continues from a copy of the first choice's cache, which is not there yet.
    var waitsForCopy = false
    var generated: [Int] = []
    var chooser: TokenChooser
    var lastToken: ContinuousClock.Instant?
    /// Why it ended.
    private(set) var reason = FinishReason.length
    private let most: Int
    private let endTokens: Set<Int>
    private var decoder: StreamingDecoder
    private var matcher: StopMatcher

    init(
        _ job: Job, index: Int, _ adapter: LoadedAdapter?, sequence: CachedSequence, pending: [Int], most: Int,
        bytes: Int,
        endTokens: Set<Int>, _ tokenizer: Tokenizer
    ) throws {
        (self.job, self.index, self.adapter, self.sequence) = (job, index, adapter, sequence)
        (self.pending, self.most, self.bytes, self.endTokens) = (pending, most, bytes, endTokens)
        let request = job.request
        chooser = try TokenChooser(
            job.settings, bias: request.bias, constraint: job.constraint, prompt: request.prompt, most: most,
            least: job.least, number: index)
        decoder = tokenizer.streamingDecoder(skipSpecialTokens: request.skipsSpecialTokens)
        matcher = StopMatcher(request.stopTexts, includesStop: request.includesStopText)
    }

    /// What decides its keys and values besides the tokens.
    var prefixOwner: PrefixOwner { adapter?.prefixes.owner(of: job.request.prompt) ?? .base }

    /// The tokens that the model has read.
    var readTokens: [Int] { Array((job.request.prompt + generated).prefix(sequence.length)) }

    /// Whether the model has read the prompt.
    var isDecoding: Bool { !generated.isEmpty }

    /// Adds a generated token and sends its text.
    /// - Returns: whether the choice ends.
    /// - Throws: ``PEFTError`` for a token that the constraint does not allow.
    func accept(_ token: Int, logProbability: TokenLogProbability?) throws -> Bool {
        job.completionTokens += 1
        guard !endTokens.contains(token) else {
            finish(.stop(text: nil))
            return true
        }
        try chooser.accept(token)
        generated.append(token)
        pending = [token]
        let (text, stop) = matcher.append(decoder.append(token))
        job.send(.token(choice: index, id: token, text: text, logProbability: logProbability))
        if let stop {
            reason = .stop(text: stop)
            job.send(.finished(choice: index, text: "", reason))
            return true
        }
        guard generated.count >= most || chooser.mustEnd else { return false }
        finish(chooser.mustEnd ? .stop(text: nil) : .length)
        return true
    }

    private func finish(_ reason: FinishReason) {
        let (text, stop) = matcher.append(decoder.finish())
        self.reason = stop.map { .stop(text: $0) } ?? reason
        job.send(.finished(choice: index, text: stop == nil ? text + matcher.finish() : text, self.reason))
    }
}
