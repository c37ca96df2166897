import LanguageModels
import PEFTSupport
import Training

/// Names of data sources (``DataSource/all(_:)``), and the maximum number of rows to read.
public struct RowsFile: Sendable {
    package var names: [String]
    package var limit: Int?

    /// - Parameters:
    ///   - names: files, or queries, as `--data` takes them.
    ///   - limit: number of rows to read at most.
    public init(_ names: [String], limit: Int? = nil) { (self.names, self.limit) = (names, limit) }
}

extension ComparisonData {
    /// Reads the data of a comparison, as chats under the same conditions as ``TrainingData``.
    /// - Parameters:
    ///   - settings: templates, format and task.
    ///   - folder: the model.
    ///   - training: the training data; none if only the base model is measured.
    ///   - validation: the validation data.
    ///   - test: the test data.
    ///   - split: the part of the training data that is held out, in place of `validation`.
    ///   - multiReference: whether test examples with the same prompt are one example with several references.
    ///   - baselines: baselines whose fields are read.
    ///   - onNote: called with notes for the user as they arise.
    /// - Throws: ``PEFTError`` for settings that don't fit the data, and for the first invalid row.
    public init(
        _ settings: DataSettings, for folder: ModelFolder, training: RowsFile?, validation: RowsFile?, test: RowsFile,
        split: ValidationSplit? = nil, multiReference: Bool = false, baselines: [Baseline] = [],
        onNote: (String) -> Void = { _ in }
    ) throws {
        let first = (training ?? test).names
        let (settings, recognized) = try settings.recognizing(first, generates: settings.task.generates(folder))
        if let note = recognized?.templatesNote { onNote(note) }
        let format = try settings.exampleFormat(of: first, tokenizerFolder: folder.url)
        if format.chat != nil, multiReference {
            throw PEFTError("--multi-reference applies to prompts, but the data holds chats", remedy: "remove it")
        }
        let tested = try format.read(test.names, limit: test.limit)
        func rows(_ file: RowsFile?) throws -> Examples {
            try file.map { try format.read($0.names, limit: $0.limit) } ?? format.examples(from: [])
        }
        var (trained, validated) = (try rows(training), try rows(validation))
        if let split, !trained.isEmpty {
            (trained, validated) = try trained.splitting(
                split, classes: Self.classes(of: trained, settings.task, folder))
        }
        if let note = SharedExamples.note(tested.count(in: trained), of: tested.count, "test") { onNote(note) }
        name =
            training.map { $0.names.map { DataSource($0).shortName }.joined(separator: ", ") } ?? "no training data"
        switch format {
        case .texts(let templates):
            var texts = Texts(
                training: trained.texts, validation: validated.texts,
                test: (multiReference ? tested.groupedByPrompt : tested).texts, templates: templates,
                task: settings.task)
            for case .typical(let field) in baselines {
                for file in [training, test].compactMap(\.self) {
                    texts.fields[field, default: [:]].merge(try Self.values(of: field, in: file)) { $1 }
                }
            }
            content = .texts(texts)
        case .chats(let settings, _):
            content = .chats(
                .init(training: trained.chats, validation: validated.chats, test: tested.chats, settings: settings))
        }
    }

    /// The class of each example, if the task is classification.
    private static func classes(of examples: Examples, _ task: TaskChoice, _ folder: ModelFolder) throws -> [String]?
    {
        guard case .texts(let texts) = examples, try task.head(for: folder, rows: texts)?.task == .classification
        else {
            return nil
        }
        return texts.map(\.target)
    }

    /// The text of a field of each row, keyed by the row's location.
    private static func values(of field: String, in file: RowsFile) throws -> [Row.Location: String] {
        let template = try Template("{\(field)}")
        return try DataSet.read(DataSource.all(file.names), limit: file.limit).reduce(into: [:]) {
            $0[$1.location] = try template.render($1)
        }
    }
}
