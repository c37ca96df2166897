import ArgumentParser
import Foundation
import LanguageModels
import PEFT
import Support
import Torch

struct VerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Tell whether an adapter fits a model, and whether it changes anything there.",
        discussion: """
            peft verify my-adapter --model google/flan-t5-base

            Lists every tensor that is unknown, missing or misshapen; values that are not numbers; settings without
            effect; the change of the model's scores on sample rows; the strength at each layer; and the scales that
            are used. The exit code is 0 where all is well, 1 where the adapter doesn't fit or does nothing.
            """)

    @Argument(help: "An adapter's folder.") var adapter: String
    @OptionGroup var model: ModelOptions
    @Option(help: ArgumentHelp("Rows that the effect is measured on (a few sentences).", valueName: "file"))
    var data: String?
    @Option(help: ArgumentHelp("Use only the first rows.", valueName: "rows")) var limit = 16
    @OptionGroup var templates: TemplateOptions
    @Flag(help: "List the strength of every place, not of layers.") var sites = false
    @Flag(help: "Print the result as JSON.") var json = false

    func run() throws {
        let device = try model.prepare()
        let url = try HubFetch.adapter(adapter)
        let folder: AdapterFolder
        do { folder = try AdapterFolder(url) } catch let error as PEFTError {
            let check = AdapterCheck(unreadable: error)
            try json ? printJSON(check) : printText(check)
            throw ExitCode(1)
        }
        let base = try AdaptedModel(model, baseOf: url)
        let batches = try SampleRows.batches(
            data, templates, limit: limit, model: base.model, tokenizer: base.tokenizer, record: base.record,
            device: device)
        var check = try AdapterCheck(folder, on: base.model, batches: batches)
        if let given = model.model, let named = folder.configuration["base_model_name_or_path"]?.string,
            Self.name(given) != Self.name(named)
        {
            check.warnings.append(
                "the adapter was made for the base model '\(named)', and '\(given)' was given"
                    + (check.fits ? "" : ": that may be why it doesn't fit"))
        }
        json ? try printJSON(check) : printText(check)
        if !check.fits || !check.isEffective { throw ExitCode(1) }
    }

    /// A model's name without its folder or owner.
    private static func name(_ model: String) -> String { URL(fileURLWithPath: model).lastPathComponent.lowercased() }

    private func printJSON(_ check: AdapterCheck) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        print(String(decoding: try encoder.encode(check), as: UTF8.self))
    }

    private func printText(_ check: AdapterCheck) {
        print("\(check.method), \(counted(check.parameters, "parameter"))")
        print(check.fits ? "fits this model" : "does not fit this model:")
        for group in check.groups {
            print("  \(group.tensors.count) \(group.kind):")
            for tensor in group.tensors { print("    - \(tensor)") }
        }
        // Single tensors are what the first problems are about.
        for problem in check.problems.dropFirst(check.groups.reduce(0) { $0 + $1.tensors.count }) {
            print("  - \(problem)")
        }
        if let effect = check.effect {
            print(check.isEffective ? "changes the model's scores:" : "changes nothing:")
            print(
                String(
                    format: "  largest %.3g, mean %.3g; divergence %.3g nats; another choice at %.1f %% of positions",
                    effect.largest, effect.mean, effect.divergence, effect.changed * 100))
        }
        if !check.sites.isEmpty { printStrength(check.sites) }
        for scale in check.scales {
            let honoured =
                abs(scale.value - scale.asked) <= 1e-9 * abs(scale.asked)
                ? "as the file asks" : "the file asks for \(scale.asked)"
            print(String(format: "scale %.6g at %@, %@", scale.value, counted(scale.places, "place"), honoured))
        }
        if !check.types.isEmpty {
            let list = check.types.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }
            print("stored tensors: \(list.joined(separator: ", "))")
        }
        for warning in check.warnings { print("note: \(warning)") }
    }

    /// Places of one unit together: numbers of several can't be compared.
    private func printStrength(_ all: [AdapterCheck.Site]) {
        printStrength(all.filter(\.isRelativeNorm), unit: "‖ΔW‖/‖W‖")
        printStrength(all.filter { !$0.isRelativeNorm && !$0.isNorm }, unit: "mean change of a score")
        printStrength(all.filter(\.isNorm), unit: "‖ΔW‖, as W is 0")
    }

    private func printStrength(_ all: [AdapterCheck.Site], unit: String) {
        guard !all.isEmpty else { return }
        print("strength (\(unit)):")
        var groups: [(name: String, values: [Double])] = []
        for site in all {
            let name = sites ? site.path : Self.group(site)
            if let index = groups.firstIndex(where: { $0.name == name }) {
                groups[index].values.append(site.strength)
            } else {
                groups.append((name, [site.strength]))
            }
        }
        let means = groups.map { $0.values.reduce(0, +) / Double($0.values.count) }
        let most = max(means.max() ?? 0, 1e-300)
        let width = groups.map(\.name.count).max() ?? 0
        for (group, mean) in zip(groups, means) {
            let bar = String(repeating: "█", count: Int((mean / most * 24).rounded()))
            print(
                "  \(group.name.padding(toLength: width, withPad: " ", startingAt: 0))  \(String(format: "%9.3g", mean))  \(bar)"
            )
        }
    }

    /// The stack and layer of a place.
    private static func group(_ site: AdapterCheck.Site) -> String {
        guard let layer = site.layer else { return site.path }
        let stack = site.path.split(separator: ".").prefix { Int($0) == nil }.joined(separator: ".")
        return "\(stack).\(layer)"
    }
}
