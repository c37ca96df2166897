import Foundation
import PEFT
import PEFTSupport
import Training

/// Plans of several methods on one model, as text and as JSON.
package struct PlanReport {
    package let outline: ModelOutline
    package let batch: PlannedBatch
    package let configuration: TrainingConfiguration
    package let plans: [TrainingPlan]

    package init(
        outline: ModelOutline, batch: PlannedBatch, configuration: TrainingConfiguration, plans: [TrainingPlan]
    ) {
        (self.outline, self.batch, self.configuration, self.plans) = (outline, batch, configuration, plans)
    }

    package var json: JSON {
        [
            "family": .string(outline.family), "parameters": .integer(outline.parameterCount),
            "weightBytes": .integer(outline.weightBytes),
            "batch": [
                "rows": .integer(batch.rows.count), "longestPrompt": .integer(batch.longestPrompt),
                "longestTarget": .integer(batch.longestTarget), "tokens": .integer(batch.tokens),
                "accumulation": .integer(configuration.accumulation),
            ],
            "optimizer": .string(configuration.optimizerText),
            "exact": ["trainable", "total", "share", "components"],
            "estimated": ["memory", "loadingBytes", "totalBytes", "timesWeights"],
            "plans": .array(plans.map(Self.json)),
        ]
    }

    private static func json(_ plan: TrainingPlan) -> JSON {
        let components = plan.summary.byComponent.reduce(into: [:]) { $0[$1.key.rawValue] = JSON.integer($1.value) }
        let memory = plan.memory.entries.reduce(into: [:]) { $0[$1.name] = JSON.integer($1.bytes) }
        return [
            "method": .string(plan.choice.method.name), "label": .string(plan.choice.label),
            "trainable": .integer(plan.summary.trainable), "total": .integer(plan.summary.total),
            "share": .number(plan.summary.share), "components": .object(components), "memory": .object(memory),
            "loadingBytes": .integer(plan.loadingBytes), "totalBytes": .integer(plan.totalBytes),
            "timesWeights": .number(plan.timesWeights),
            "cause": plan.isNoteworthy ? .string(plan.memory.largest.name) : .null,
        ]
    }

    /// - Parameters:
    ///   - bytes: formats a size, such as `1.2 GB`.
    ///   - grouped: formats an integer with thousands separators.
    package func text(bytes: (Int) -> String, grouped: (Int) -> String) -> String {
        func left(_ text: String, _ width: Int) -> String {
            text + String(repeating: " ", count: max(0, width - text.count))
        }
        func right(_ text: String, _ width: Int) -> String {
            String(repeating: " ", count: max(0, width - text.count)) + text
        }
        var lines = [
            "\(outline.family), \(grouped(outline.parameterCount)) parameters, weights "
                + Self.weights(bytes(outline.weightBytes), in: outline.weightFormats),
            "batch of \(counted(batch.rows.count, "example")), \(counted(batch.tokens, "token")), prompts up to \(batch.longestPrompt) "
                + "and targets up to \(batch.longestTarget); \(configuration.optimizerText)",
        ]
        for plan in plans {
            lines += ["", plan.choice.label]
            lines.append(
                "  trainable: \(grouped(plan.summary.trainable)) of \(grouped(plan.summary.total)) parameters "
                    + String(format: "(%.2f %%), exact", plan.summary.share * 100))
            for (component, count) in plan.summary.byComponent.sorted(by: {
                ($1.value, $0.key.rawValue) < ($0.value, $1.key.rawValue)
            }) {
                lines.append("    " + left(component.rawValue, 22) + right(grouped(count), 14))
            }
            // Methods may store the base in a format of their own.
            if plan.weightBytes != outline.weightBytes {
                lines.append("  weights: \(Self.weights(bytes(plan.weightBytes), in: plan.weightFormats))")
            }
            lines.append("  peak memory, estimated")
            for entry in plan.memory.entries {
                lines.append("    " + left(entry.title, 22) + right(bytes(entry.bytes), 14))
            }
            lines.append("    " + left("total", 22) + right(bytes(plan.memory.total), 14))
            let gradients = plan.summary.trainable * 4
            if plan.memory.gradients < gradients / 2 {
                lines.append(
                    "    Only \(bytes(plan.memory.gradients)) of the \(bytes(gradients)) of gradients exist at the peak: the backward pass"
                        + " computes them one at a time while it frees activations.")
            }
            if plan.loadingBytes > plan.memory.total {
                lines.append(
                    "    loading the weights takes more, \(bytes(plan.loadingBytes)): they are stored in a narrower type"
                        + " and upcast")
            }
            if plan.isNoteworthy {
                lines.append(
                    "  " + String(format: "That is %.0f times the size of the weights", plan.timesWeights)
                        + "; the largest part is \(plan.memory.largest.title)  (\(bytes(plan.memory.largest.bytes))). "
                        + Self.advice(plan.memory.largest.name))
            }
        }
        return lines.joined(separator: "\n")
    }

    /// Such as `1.2 GB in nf4 and fp32`.
    private static func weights(_ size: String, in formats: [String]) -> String {
        let others = formats.dropLast().joined(separator: ", ")
        return "\(size) in \(others.isEmpty ? "" : others + " and ")\(formats.last ?? "")"
    }

    /// How to reduce a term.
    private static func advice(_ term: String) -> String {
        switch term {
        case "activations", "temporaries", "allocator":
            "Reduce it with --checkpoint-activations, smaller batches with --accumulate, or shorter texts."
        case "gradients", "optimizerStates":
            "Reduce it with a method that trains fewer parameters, or with --optimizer adamw8bit or adafactor."
        case "baseline": "That is the program itself, which does not grow with the model."
        default: "Reduce it with a smaller model."
        }
    }
}
