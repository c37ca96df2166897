import ArgumentParser
import Experiments
import Foundation
import PEFT
import PEFTSupport

struct NeighborsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "neighbors",
        abstract: "Show the nearest vocabulary entries of a soft prompt's virtual tokens.",
        discussion: """
            peft neighbors my-prompt --html neighbors.html

            Lists the nearest vocabulary entries of each virtual token by cosine similarity and by Euclidean distance,
            and compares how close they are with random entries and with the prompt before training. Words that name the
            task are marked: those of the adapter's templates, or of --task.
            """)

    @Argument(help: "Adapter folder.") var adapter: String
    @OptionGroup var model: ModelOptions
    @Option(help: ArgumentHelp("Neighbors per virtual token.", valueName: "n")) var count = 5
    @Option(
        help: ArgumentHelp(
            "Comma-separated words that name the task (default: those of the templates).", valueName: "words"))
    var task: String?
    @OptionGroup var outputs: ReportOptions

    func run() throws {
        try require("--count", count)
        try Output.check([outputs.html, outputs.output])
        let adapted = try AdaptedModel(model, adapter: adapter, merge: false)
        guard let attached = adapted.adapter else { return }
        var options = Neighbors.Options()
        options.count = count
        options.seed = adapted.record?.configuration.seed ?? 0
        options.taskWords =
            task?.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
            ?? adapted.record.map { Neighbors.words(inTemplates: [$0.prompt, $0.target]) } ?? []
        let name = URL(fileURLWithPath: adapter).lastPathComponent
        let report = try Neighbors(attached, tokenizer: adapted.tokenizer, options: options).report(
            name: name, model: adapted.record?.model ?? model.model ?? "the base model")
        try outputs.present(
            table: report.table(), json: report.json(), html: report.html())
    }
}
