import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Several bottleneck adapters in one: levels that act one upon the other at each sublayer's output (AdapterHub's stacks; Pfeiffer et
/// al. 2020, MAD-X), each of which is one adapter or an AdapterFusion of several (``FusionAttention``).
///
/// Training changes the last level alone: its adapter, or the attention of its fusion, as in the paper.
package enum BottleneckComposition: PEFTMethod {
    package static let name = "composition"
    package static let peftType: String? = "BOTTLENECK_COMPOSITION"
    package static let isReadableByHuggingFace = false
    package static let summary = "stacks and fusions of bottleneck adapters (Pfeiffer et al. 2020, 2021)"
    package static let defaultLearningRate = 1e-4
    package static let isMergeable = false
    package static let start = AdapterStart.changed

    /// One of the adapters.
    package struct Member: Sendable {
        package let name: String
        package let settings: BottleneckConfiguration
    }

    package struct Configuration: MethodConfiguration {
        /// The levels in the order in which they act. The adapters of a level with several are fused.
        package var levels: [[Member]] = []
        package var fusion = FusionConfiguration()

        package init() {}

        package var isFused: Bool { levels.contains { $0.count > 1 } }

        package static let fields: [ConfigurationField<Configuration>] = [
            .init("levels", key: "levels", .text, help: "adapters of each level") { configuration in
                .array(
                    configuration.levels.map { level in
                        .array(level.map { .object($0.settings.json.merging(["name": .string($0.name)]) { $1 }) })
                    })
            } write: { configuration, value in
                configuration.levels = try (value.array ?? []).map { level in
                    try (level.array ?? []).map { member in
                        guard var fields = member.object, let name = fields.removeValue(forKey: "name")?.string else {
                            throw PEFTError("an adapter of 'levels' has no name")
                        }
                        return Member(name: name, settings: try BottleneckConfiguration(json: fields))
                    }
                }
            },
            .init("fusion", key: "fusion", .text, help: "settings of the fusion", isExtension: true) {
                $0.isFused ? .object($0.fusion.json) : .null
            } write: { configuration, value in
                guard let fields = value.object else { throw PEFTError("it is not an object") }
                configuration.fusion = try FusionConfiguration(json: fields)
            },
        ]

        package func validate() throws {
            guard !levels.isEmpty, levels.allSatisfy({ !$0.isEmpty }) else {
                throw PEFTError("a level of the composition has no adapters", remedy: "combine the adapters again")
            }
            let members = levels.flatMap { $0 }
            let names = members.map(\.name)
            guard Set(names).count == names.count, !names.contains(where: { $0.isEmpty || $0.contains(".") }) else {
                throw PEFTError(
                    "the adapters are named \(names.joined(separator: ", "))",
                    remedy: "use different names without dots")
            }
            let readers = members.filter { $0.settings.readsStream }
            if let reader = readers.first,
                let other = members.first(where: { $0.settings.isParallel && !$0.settings.readsStream })
            {
                throw PEFTError(
                    "the adapter '\(reader.name)' reads the residual stream and '\(other.name)' the sublayers' inputs",
                    remedy: "combine adapters of one kind")
            }
            for level in levels where level.count > 1 {
                guard let first = level.first else { continue }
                if let other = level.first(where: {
                    $0.settings.isParallel || $0.settings.sublayers != first.settings.sublayers
                        || $0.settings.readsStream != first.settings.readsStream
                }) {
                    throw PEFTError(
                        other.settings.isParallel
                            ? "the adapter '\(other.name)' is parallel to its sublayers, which can't be fused"
                            : "the adapters '\(first.name)' and '\(other.name)' adapt different sublayers, or read different inputs",
                        remedy: "fuse sequential adapters of one kind")
                }
            }
        }
    }

    package static func label(_ configuration: Configuration) -> String {
        let levels = configuration.levels.map { level in
            level.count == 1 ? level[0].name : "fusion of \(level.map(\.name).joined(separator: ", "))"
        }
        return levels.count == 1 ? levels[0] : "stack of " + levels.joined(separator: ", ")
    }

    package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
        // The plans of the adapters alone, whose errors are theirs.
        var specs: [String: [String: [TensorSpec]]] = [:]
        for member in configuration.levels.joined() {
            for attachment in try member.settings.plan(for: model) {
                specs[member.name, default: [:]][attachment.path] = attachment.tensors
            }
        }
        return model.outputs.compactMap { site -> Attachment? in
            var tensors: [TensorSpec] = []
            for (index, level) in configuration.levels.enumerated() {
                let isLast = index == configuration.levels.count - 1
                let members = level.filter { specs[$0.name]?[site.path] != nil }
                guard !members.isEmpty else { continue }
                for member in members {
                    tensors += (specs[member.name]?[site.path] ?? []).map {
                        TensorSpec("\(member.name).\($0.key)", $0.shape, isTrained: isLast && level.count == 1)
                    }
                }
                if level.count > 1 {
                    tensors += configuration.fusion.tensors(size: site.size).map {
                        TensorSpec("fusion.\(index).\($0.key)", $0.shape, isTrained: isLast)
                    }
                }
            }
            guard !tensors.isEmpty else { return nil }
            return .output(site.path, tensors) { output, context in
                ComposedBottlenecks(output, configuration, context)
            }
        }
    }

    package static func trainingHook(_ configuration: Configuration, for adapter: Adapter) -> (any TrainingHook)? {
        guard configuration.fusion.isRegularized, configuration.fusion.hasValue,
            configuration.levels.last?.count ?? 0 > 1
        else { return nil }
        return FusionPenalty(
            adapter.attached.compactMap { ($0.adapter as? ComposedBottlenecks)?.trainedFusion?.value?.tensor })
    }
}

/// The levels of a composition at one sublayer's output.
final class ComposedBottlenecks: Module, StreamAdapter, AdapterModule {
    private struct Level {
        let members: [(name: String, adapter: BottleneckAdapter)]
        /// The attention among the members, and its name.
        let fusion: (name: String, attention: FusionAttention)?
        let isTrained: Bool
    }

    private let levels: [Level]
    let readsStream: Bool

    init(_ site: OutputSite, _ configuration: BottleneckComposition.Configuration, _ context: AttachmentContext) {
        readsStream = configuration.levels.joined().contains { $0.settings.readsStream }
        levels = configuration.levels.enumerated().compactMap { index, level in
            let members = level.filter { $0.settings.sublayers.contains(site.kind) }.compactMap { member in
                member.settings.adapter(size: site.size, context).map { (name: member.name, adapter: $0) }
            }
            guard !members.isEmpty else { return nil }
            let attention =
                level.count > 1 ? FusionAttention(site.size, configuration.fusion, context) : nil
            return Level(
                members: members, fusion: attention.map { ("fusion.\(index)", $0) },
                isTrained: index == configuration.levels.count - 1)
        }
    }

    /// The attention that training changes.
    var trainedFusion: FusionAttention? { levels.last.flatMap { $0.isTrained ? $0.fusion?.attention : nil } }

    var adapterParameters: [AdapterParameter] {
        levels.flatMap { level in
            level.members.flatMap { name, adapter in
                adapter.adapterParameters.map {
                    AdapterParameter(
                        "\(name).\($0.key)", $0.parameter, isTrained: level.isTrained && level.fusion == nil)
                }
            }
                + (level.fusion.map { name, attention in
                    attention.tensors.map {
                        AdapterParameter("\(name).\($0.key)", $0.parameter, isTrained: level.isTrained)
                    }
                } ?? [])
        }
    }

    func callAsFunction(_ y: Tensor, input: Tensor) -> Tensor { applied(to: y, input: input, stream: nil) }

    func callAsFunction(_ y: Tensor, stream: ResidualStream) -> Tensor { applied(to: y, input: y, stream: stream) }

    private func applied(to y: Tensor, input: Tensor, stream: ResidualStream?) -> Tensor {
        levels.reduce(y) { y, level in
            guard let attention = level.fusion?.attention else {
                let adapter = level.members[0].adapter
                if let stream, adapter.readsStream { return adapter(y, stream: stream) }
                return adapter(y, input: input)
            }
            let joined = level.members[0].adapter.readsStream ? stream?.joined(by: y) ?? y : y
            return attention(y, joined: joined, deltas: level.members.map { $0.adapter.delta(of: joined) })
        }
    }
}
