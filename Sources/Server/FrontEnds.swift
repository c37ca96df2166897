import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Serving
import Training

/// What turns a request for the base or an adapter into tokens, and an answer into text.
struct FrontEnd: Sendable {
    let tokenizer: Tokenizer
    /// The tokenizer for the engine; `nil` for the base's.
    let shared: SharedTokenizer?
    let conversations: Conversations
    /// The task, and the names of labels.
    let head: ModelHead
    /// The languages that an adapter, or the model, was trained with.
    let languages: TranslationLanguages
}

extension TrainingRecord {
    /// Languages that are the same for all texts.
    fileprivate var languages: TranslationLanguages {
        func fixed(_ language: String?) -> String? { language.flatMap { $0.contains("{") ? nil : $0 } }
        return TranslationLanguages(source: fixed(sourceLanguage), target: fixed(targetLanguage))
    }
}

/// The front ends of the base and of adapters. An adapter's own tokenizer and chat template, if its folder has them, and its
/// labels are read at the first request and kept.
final class FrontEnds: @unchecked Sendable {
    private let engine: Engine
    private let folder: ModelFolder
    private let template: String?
    private let base: FrontEnd
    /// The base's `tokenizer.json`, of which adapters often have a copy.
    private let tokenizerFile: Data?
    private let lock = NSLock()
    /// By the adapter's version.
    private var known: [Int: Result<FrontEnd, ServingError>] = [:]

    /// - Parameter template: a chat template for all, in place of the tokenizers'.
    init(_ engine: Engine, folder: ModelFolder, template: String?) throws {
        (self.engine, self.folder, self.template) = (engine, folder, template)
        tokenizerFile = Self.tokenizerFile(folder.url)
        let record = try TrainingRecord.read(in: folder.url)
        base = FrontEnd(
            tokenizer: engine.tokenizer, shared: nil,
            conversations: try Conversations(
                engine.tokenizer, folder: folder.url, choice: template, settings: record?.chat,
                isEncoderDecoder: engine.model.isEncoderDecoder),
            head: engine.model.head, languages: record?.languages ?? TranslationLanguages())
    }

    /// The front end of an adapter; `nil` is the base.
    /// - Throws: ``ServingError`` for an adapter whose files are damaged, or whose task isn't the model's.
    subscript(adapter: String?) -> FrontEnd {
        get throws {
            guard let adapter, let status = engine.adapters.first(where: { $0.name == adapter }) else { return base }
            if let result = lock.withLock({ known[status.version] }) { return try result.get() }
            let result: Result<FrontEnd, ServingError>
            do { result = .success(try read(status.folder)) } catch {
                let problem = (error as? PEFTError)?.description ?? "\(error)"
                result = .failure(ServingError(.adapter, problem, parameter: "model"))
            }
            lock.withLock {
                let current = Set(engine.adapters.map(\.version))
                known = known.filter { current.contains($0.key) }
                known[status.version] = result
            }
            return try result.get()
        }
    }

    private func read(_ url: URL) throws -> FrontEnd {
        let record = try TrainingRecord.read(in: url)
        var (tokenizer, shared, tokenizerFolder) = (base.tokenizer, SharedTokenizer?.none, folder.url)
        if try AdapterFiles.hasTokenizer(url) {
            // The chat template is beside the tokenizer.
            tokenizerFolder = url
            if tokenizerFile == nil || Self.tokenizerFile(url) != tokenizerFile {
                tokenizer = try Tokenizer.load(folder: url)
                shared = SharedTokenizer(tokenizer)
            }
        }
        let head = record?.trainedHead ?? (try? AdapterFolder(url))?.head(on: folder) ?? base.head
        guard base.head.task.generates || head.task == base.head.task && head.pooling == base.head.pooling else {
            throw PEFTError(
                "the adapter is for \(head.task.rawValue)\(head.task == base.head.task ? " with another pooling" : ""), but the server's model is for \(base.head.task.rawValue)",
                remedy: "serve it with a server of its own")
        }
        return FrontEnd(
            tokenizer: tokenizer, shared: shared,
            conversations: try Conversations(
                tokenizer, folder: tokenizerFolder, choice: template, settings: template == nil ? record?.chat : nil,
                isEncoderDecoder: engine.model.isEncoderDecoder),
            head: head, languages: record?.languages ?? base.languages)
    }

    private static func tokenizerFile(_ folder: URL) -> Data? {
        try? Data(contentsOf: folder.appendingPathComponent("tokenizer.json"), options: .mappedIfSafe)
    }
}
