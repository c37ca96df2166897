import Experiments
import Foundation
import LanguageModels
import Support
import Training

/// A file of rows, and how many of them to take.
typealias RowsFile = (path: String, limit: Int?)

extension ComparisonData {
    /// The rows of `peft compare` and `peft sweep`, read as chats where `peft train` would.
    init(
        _ templates: TemplateOptions, _ chat: ChatOptions, for folder: ModelFolder, training: RowsFile?,
        validation: RowsFile?, test: RowsFile, multiReference: Bool = false
    ) throws {
        let name = training.map { URL(fileURLWithPath: $0.path).lastPathComponent } ?? "no training rows"
        guard let settings = try chat.settings(templates, data: (training ?? test).path, folder: folder.url) else {
            let rowTemplates = try templates.rows()
            func rows(_ file: RowsFile?) throws -> [Example] {
                try file.map { try Rows.read($0.path, rowTemplates, limit: $0.limit) } ?? []
            }
            let tested = try rows(test)
            self.init(
                name: name,
                content: .texts(
                    .init(
                        training: try rows(training), validation: try rows(validation),
                        test: multiReference ? Example.groupedByPrompt(tested) : tested, templates: rowTemplates,
                        task: try templates.choice())))
            return
        }
        guard !multiReference else {
            throw PEFTError("--multi-reference is for prompts, and the rows are chats", remedy: "leave it out")
        }
        let wrapped = try chat.wrapped(templates)
        func rows(_ file: RowsFile?) throws -> [Conversation] {
            try file.map {
                try Rows.read($0.path, settings, wrapped?.prompt, wrapped?.target, limit: $0.limit)
            } ?? []
        }
        self.init(
            name: name,
            content: .chats(
                .init(
                    training: try rows(training), validation: try rows(validation), test: try rows(test),
                    settings: settings)))
    }
}
