import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers

/// `--add-tokens`: the tokens that a training run adds to its tokenizer and its model.
final class AddedVocabulary {
    /// The base with the enlarged vocabulary.
    let folder: ModelFolder
    /// Whether the base's matrices have fewer rows than the new tokens need.
    let isResized: Bool
    /// A folder with the tokenizer's files.
    var tokenizerFolder: URL { temporary.url }
    private let temporary: TemporaryFolder
    private let new: NewTokens
    private let base: ModelFolder
    private var areTrained = true

    /// - Parameters:
    ///   - path: a text file with one token per line.
    ///   - seed: the seed of the new rows.
    /// - Throws: ``PEFTError`` if the file, the tokenizer or the model doesn't allow it.
    init(_ path: String, base: ModelFolder, seed: UInt64) throws {
        let file = URL(fileURLWithPath: NSString(string: path).expandingTildeInPath)
        new = try NewTokens(NewTokens.list(file), in: base.url)
        guard let last = new.tokens.last?.id else {
            throw PEFTError(
                "all tokens of \(path) are in the vocabulary of \(base.url.path)", remedy: "remove --add-tokens")
        }
        temporary = try TemporaryFolder()
        for file in new.files { try file.write(into: temporary.url) }
        isResized = try last >= base.outline().vocabularySize
        self.base = base
        folder = isResized ? base.with(tokens: last + 1, seed: seed) : base
    }

    /// The method, which also trains the new tokens if it can.
    func choice(_ requested: MethodChoice) throws -> MethodChoice {
        let (choice, trainsThem) = try requested.training(
            newTokens: new.tokens.map(\.id), of: ModelOutline(folder.outline()))
        areTrained = trainsThem
        return choice
    }

    /// Writes the tokenizer's files, and for a whole model its generation settings.
    func write(into folder: URL, isModel: Bool) throws {
        for file in new.files { try file.write(into: folder) }
        let settings = base.url.appendingPathComponent("generation_config.json")
        guard isModel, FileManager.default.fileExists(atPath: settings.path) else { return }
        try FolderFile(copyOf: settings).write(into: folder)
    }

    /// Says what is added.
    func announce() {
        let (first, last) = (new.tokens.first?.id ?? 0, new.tokens.last?.id ?? 0)
        let known = new.known == 0 ? "" : "; \(counted(new.known, "other")) of the list known already"
        Console.note(
            "\(counted(new.tokens.count, "new token")) with ids from \(first) to \(last)"
                + (isResized ? ", whose embeddings start at the mean of all tokens" : ", for which the base has rows")
                + known)
        if !areTrained {
            Console.note(
                "the method doesn't train the new tokens; add --modules-to-save with the embeddings and the output layer"
            )
        }
    }
}
