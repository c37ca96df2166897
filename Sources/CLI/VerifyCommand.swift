import ArgumentParser
import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch

struct VerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Check that an adapter fits a model and has an effect.",
        discussion: """
            peft verify my-adapter --model google/flan-t5-base

            Reports tensors that are unknown, missing or of the wrong shape; NaN and infinite values; settings without
            effect; the change of the logits on sample texts; the relative norm of the delta at each layer; and the
            scales in use. The exit code is 1 if the adapter does not fit or has no effect, else 0.
            """)

    @Argument(help: "Adapter folder.") var adapter: String
    @OptionGroup var model: ModelOptions
    @Option(help: ArgumentHelp("Data to measure the effect on (default: built-in sentences).", valueName: "file"))
    var data: String?
    @Option(help: ArgumentHelp("Maximum number of examples.", valueName: "n")) var limit = 16
    @OptionGroup var templates: TemplateOptions
    @Flag(help: "List the strength per module instead of per layer.") var sites = false
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
            invocation: folder.choice.invocation, device: device)
        var check = try AdapterCheck(folder, on: base.model, batches: batches)
        if let given = model.model, let named = folder.configuration["base_model_name_or_path"]?.string,
            Self.name(given) != Self.name(named)
        {
            check.warnings.append(
                "the adapter was trained for the base model '\(named)', but --model is '\(given)'"
                    + (check.fits ? "" : "; this may be why it doesn't fit"))
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
        // The first problems are those of single tensors, printed above.
        for problem in check.problems.dropFirst(check.groups.reduce(0) { $0 + $1.tensors.count }) {
            print("  - \(problem)")
        }
        if let effect = check.effect {
            print(check.isEffective ? "changes the logits:" : "has no effect:")
            print(
                String(
                    format:
                        "  maximum %.3g, mean %.3g; KL divergence %.3g nats; argmax changed at %.1f %% of positions",
                    effect.largest, effect.mean, effect.divergence, effect.changed * 100))
        }
        if !check.sites.isEmpty { printStrength(check.sites) }
        for tensor in check.changedExperts {
            let names = tensor.changed.count == tensor.count ? "all" : Self.ranges(tensor.changed)
            print("\(tensor.path): changes \(names.isEmpty ? "no" : names) experts of \(tensor.count)")
        }
        for scale in check.scales {
            let note =
                abs(scale.value - scale.asked) <= 1e-9 * abs(scale.asked)
                ? "as in the adapter's file" : "but the adapter's file specifies \(scale.asked)"
            print(String(format: "scale %.6g in %@, %@", scale.value, counted(scale.places, "module"), note))
        }
        if !check.types.isEmpty {
            let list = check.types.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }
            print("stored tensors: \(list.joined(separator: ", "))")
        }
        for warning in check.warnings { print("note: \(warning)") }
    }

    /// Prints modules of different units separately, because their values are not comparable.
    private func printStrength(_ all: [AdapterCheck.Site]) {
        printStrength(all.filter(\.isRelativeNorm), unit: "‖ΔW‖/‖W‖")
        printStrength(all.filter { !$0.isRelativeNorm && !$0.isNorm }, unit: "mean change of the output")
        printStrength(all.filter(\.isNorm), unit: "‖ΔW‖, where W = 0")
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
        let largest = max(means.max() ?? 0, 1e-300)
        let width = groups.map(\.name.count).max() ?? 0
        for (group, mean) in zip(groups, means) {
            let bar = String(repeating: "█", count: Int((mean / largest * 24).rounded()))
            print(
                "  \(group.name.padding(toLength: width, withPad: " ", startingAt: 0))  \(String(format: "%9.3g", mean))  \(bar)"
            )
        }
    }

    /// Ascending numbers such as `0–3, 7`.
    private static func ranges(_ numbers: [Int]) -> String {
        var parts: [ClosedRange<Int>] = []
        for number in numbers {
            if let last = parts.last, last.upperBound == number - 1 {
                parts[parts.count - 1] = last.lowerBound...number
            } else {
                parts.append(number...number)
            }
        }
        return parts.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)–\($0.upperBound)" }
            .joined(separator: ", ")
    }

    /// The stack and layer of a module.
    private static func group(_ site: AdapterCheck.Site) -> String {
        guard let layer = site.layer else { return site.path }
        let stack = site.path.split(separator: ".").prefix { Int($0) == nil }.joined(separator: ".")
        return "\(stack).\(layer)"
    }
}
