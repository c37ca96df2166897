import Experiments
import Foundation
import LanguageModels
import Support
import Training

/// Data files and the maximum number of rows to read.
typealias RowsFile = (paths: [String], limit: Int?)

extension ComparisonData {
    /// The data of `peft compare` and `peft sweep`, read as chats under the same conditions as in `peft train`.
    init(
        _ templates: TemplateOptions, _ chat: ChatOptions, for folder: ModelFolder, training: RowsFile?,
        validation: RowsFile?, test: RowsFile, split: ValidationSplit? = nil, multiReference: Bool = false,
        baselines: [Baseline] = []
    ) throws {
        let templates = try templates.recognized(
            (training ?? test).paths, chat, generates: templates.choice().generates(folder))
        let name = training.map { Rows.name($0.paths) } ?? "no training data"
        guard let settings = try chat.settings(templates, data: (training ?? test).paths, folder: folder.url) else {
            let rowTemplates = try templates.rows()
            func rows(_ file: RowsFile?) throws -> [Example] {
                try file.map { try Rows.read($0.paths, rowTemplates, limit: $0.limit) } ?? []
            }
            let (tested, choice) = (try rows(test), try templates.choice())
            var (trained, validated) = (try rows(training), try rows(validation))
            if let split, !trained.isEmpty {
                let task = try choice.head(for: folder, rows: trained)?.task
                (trained, validated) = try split(
                    trained, classes: task == .classification ? trained.map(\.target) : nil)
            }
            SharedRows.warn(SharedExamples.count(tested, in: trained), of: tested.count, "test")
            var texts = Texts(
                training: trained, validation: validated,
                test: multiReference ? Example.groupedByPrompt(tested) : tested, templates: rowTemplates,
                task: choice)
            for case .typical(let field) in baselines {
                for file in [training, test].compactMap(\.self) {
                    texts.fields[field, default: [:]].merge(try Rows.values(of: field, in: file)) { $1 }
                }
            }
            self.init(name: name, content: .texts(texts))
            return
        }
        guard !multiReference else {
            throw PEFTError("--multi-reference applies to prompts, but the data holds chats", remedy: "remove it")
        }
        let wrapped = try chat.wrapped(templates)
        func rows(_ file: RowsFile?) throws -> [Conversation] {
            try file.map {
                try Rows.read($0.paths, settings, wrapped?.prompt, wrapped?.target, limit: $0.limit)
            } ?? []
        }
        let tested = try rows(test)
        var (trained, validated) = (try rows(training), try rows(validation))
        if let split, !trained.isEmpty { (trained, validated) = try split(trained) }
        SharedRows.warn(SharedExamples.count(tested, in: trained), of: tested.count, "test")
        self.init(
            name: name,
            content: .chats(.init(training: trained, validation: validated, test: tested, settings: settings)))
    }
}
