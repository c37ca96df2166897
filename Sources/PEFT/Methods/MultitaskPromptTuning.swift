import Foundation
import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Multitask prompt tuning (Wang et al. 2023): task k's prompt is P ∘ (C_k R_k) with a shared P `[rows, size]`, C_k
/// `[rows, ranks]` and R_k `[ranks, size]`.
///
/// A sequence's task index is set with ``RowTasks``; the default is 0. With `num_transformer_submodules` 2, Hugging
/// Face's usual value, the second half of the prompt precedes the decoder's input; Hugging Face omits it in
/// generation, so the default here is 1.
public enum MultitaskPromptTuning: BuiltInMethod {
    /// What is initialized from the file of an adapter trained on other tasks.
    public enum Source: String, Sendable, CaseIterable {
        case average = "AVERAGE_SOURCE_TASKS"
        case exact = "EXACT_SOURCE_TASK"
        case shared = "ONLY_SOURCE_SHARED"
    }

    /// Options of ``MultitaskPromptTuning``.
    public struct Configuration: BuiltInConfiguration {
        /// The virtual tokens.
        public var tokens = VirtualTokens()
        /// How the shared prompt is initialized.
        public var start = PromptStart()
        /// Where the prompt comes from.
        public var source: Source?
        /// Path of the adapter's safetensors file to initialize from.
        public var sourceFile: String?
        /// Index of the task in `sourceFile` to initialize from.
        public var sourceTask = 0
        /// Number of tasks.
        public var tasks = 1
        /// Rank of each task's factors.
        public var ranks = 1

        /// The default options.
        public init() {}

        package func check() throws {
            try tokens.validate()
            try start.validate()
            guard tasks >= 1, ranks >= 1, sourceTask >= 0 else {
                throw PEFTError("num_tasks is \(tasks) and num_ranks is \(ranks)", remedy: "use 1 or more for both")
            }
            if source != nil, (sourceFile ?? "").isEmpty {
                throw PEFTError("initializing from another adapter needs its file", remedy: "pass --init-file")
            }
        }

        package enum Declaration: ConfigurationDeclaration {
            package static var fileDefaults: Configuration {
                var configuration = Configuration()
                (configuration.tokens, configuration.start) = (VirtualTokens(stacks: nil), PromptStart(.normal))
                return configuration
            }

            package static let fields: [ConfigurationField<Configuration>] =
                tokenFields(\.tokens) + [
                    .init("tasks", key: "num_tasks", .integer(1...100_000), help: "number of tasks") {
                        .integer($0.tasks)
                    } write: {
                        $0.tasks = try integer($1)
                    },
                    .init("ranks", key: "num_ranks", .integer(1...65536), help: "rank of each task's factors") {
                        .integer($0.ranks)
                    } write: {
                        $0.ranks = try integer($1)
                    },
                    .init(
                        "init", key: "prompt_tuning_init",
                        .choice(PromptStart.Kind.allCases.map(\.rawValue) + Source.allCases.map(\.rawValue)),
                        help: "prompt initialization: as in prompt tuning, or from --init-file"
                    ) {
                        .string($0.source?.rawValue ?? $0.start.kind.huggingFaceName)
                    } write: {
                        let word = try text($1)
                        $0.source = Source(rawValue: word.uppercased())
                        if $0.source == nil {
                            guard let kind = PromptStart.Kind(word) else {
                                throw PEFTError("'\(word)' is not a prompt initialization", remedy: "use vocabulary")
                            }
                            $0.start.kind = kind
                        }
                    },
                    .init(
                        "init-file", key: "prompt_tuning_init_state_dict_path", .text,
                        help: "adapter safetensors file to initialize from"
                    ) {
                        $0.sourceFile.map { .string($0) } ?? .null
                    } write: {
                        $0.sourceFile = try text($1)
                    },
                    .init(
                        "init-task", key: "prompt_tuning_init_task", .integer(0...100_000),
                        help: "index of the task in --init-file to initialize from"
                    ) {
                        .integer($0.sourceTask)
                    } write: {
                        $0.sourceTask = try integer($1)
                    },
                ] + textFields(\.start)
            package static let neutral: [String: [JSON]] = ["modules_to_save": [[]]]
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = MultitaskPromptTuning.Configuration
        package static let name = "mpt"
        package static let peftType: String? = "MULTITASK_PROMPT_TUNING"
        package static let summary = "a shared soft prompt times low-rank task prompts (Wang et al. 2023)"
        package static let defaultLearningRate = 0.3
        package static let start = AdapterStart.changed
        package static let isMergeable = false

        package static func label(_ configuration: Configuration) -> String {
            "multitask prompt tuning, \(counted(configuration.tokens.count, "token")), \(counted(configuration.tasks, "task"))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.tokens = configuration.tokens.resolved(for: model, size: model.inputs.first?.size)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let resolved = resolved(configuration, for: model)
            let tokens = resolved.tokens
            let sites = try tokens.inputs(of: model, method: name).prefix(tokens.stacks ?? 1)
            return sites.enumerated().map { index, site in
                .input(site.path, TaskPrompts.shapes(resolved, site.size).map { .init($0.key, $0.shape) }) {
                    input, context in
                    let prompts = try context.shared("prompts") {
                        try TaskPrompts(resolved, size: input.size, context)
                    }
                    return TaskPrompt(prompts, rows: (index * tokens.count)..<((index + 1) * tokens.count))
                }
            }
        }
    }
}

/// The tensors of multitask prompt tuning, shared by all stacks.
final class TaskPrompts {
    /// P `[rows, size]`, C `[tasks, rows, ranks]`, R `[tasks, ranks, size]`.
    let shared: Parameter
    let columns: Parameter
    let rows: Parameter

    static func shapes(_ configuration: MultitaskPromptTuning.Configuration, _ size: Int) -> [(
        key: String, shape: [Int]
    )] {
        let (tokens, tasks, ranks) = (configuration.tokens.rows, configuration.tasks, configuration.ranks)
        return [
            ("prompt_embeddings", [tokens, size]), ("prefix_task_cols", [tasks, tokens, ranks]),
            ("prefix_task_rows", [tasks, ranks, size]),
        ]
    }

    init(_ configuration: MultitaskPromptTuning.Configuration, size: Int, _ context: AttachmentContext) throws {
        let shapes = Self.shapes(configuration, size)
        func factor(_ shape: [Int]) -> Tensor {
            let tensor = Tensor.zeros(shape, dtype: context.dtype, device: context.device)
            if context.device != .meta, !context.isLoading {
                tensor.fillNormal(deviation: 0.02, from: &context.random)
            }
            return tensor
        }
        var start = configuration.start
        // Values from another adapter's file overwrite the initialization.
        if configuration.source != nil { start.kind = .normal }
        shared = Parameter(try start.vectors(shapes[0].shape[0], size: size, context))
        columns = Parameter(factor(shapes[1].shape))
        rows = Parameter(factor(shapes[2].shape))
        if let source = configuration.source, !context.isLoading, context.device != .meta {
            try take(source, configuration)
        }
    }

    /// Loads another adapter's shared prompt and, for every task, the factors of one of its tasks or their mean.
    private func take(_ source: MultitaskPromptTuning.Source, _ configuration: MultitaskPromptTuning.Configuration)
        throws
    {
        let path = NSString(string: configuration.sourceFile ?? "").expandingTildeInPath
        guard path.hasSuffix(".safetensors"), FileManager.default.fileExists(atPath: path) else {
            throw PEFTError("safetensors file \(path) doesn't exist", remedy: "pass an adapter_model.safetensors")
        }
        let file = try SafetensorsFile(URL(fileURLWithPath: path))
        func read(_ key: String, like target: Tensor, isOfTasks: Bool) throws -> Tensor {
            guard let shape = file.entries[key]?.shape,
                shape.dropFirst(isOfTasks ? 1 : 0) == target.shape.dropFirst(isOfTasks ? 1 : 0),
                !isOfTasks || shape.count == target.shape.count && shape[0] > 0
            else {
                throw PEFTError(
                    "\(path) has no '\(key)' of shape \(target.shape)",
                    remedy: "use an adapter with the same number of tokens, ranks and hidden size")
            }
            return try file.tensor(key)
        }
        shared.tensor.copy(from: try read("prompt_embeddings", like: shared.tensor, isOfTasks: false))
        guard source != .shared else { return }
        for (key, parameter) in [("prefix_task_cols", columns), ("prefix_task_rows", rows)] {
            let all = try read(key, like: parameter.tensor, isOfTasks: true)
            guard source == .average || configuration.sourceTask < all.dim(0) else {
                throw PEFTError(
                    "\(path) has no task \(configuration.sourceTask)",
                    remedy: "use a task from 0 to \(all.dim(0) - 1)")
            }
            let one = source == .average ? all.mean(axes: [0]) : all[configuration.sourceTask]
            for task in 0..<parameter.tensor.dim(0) { parameter.tensor[task].copy(from: one) }
        }
    }

    /// Task k's prompt, `range` of `[rows, size]`.
    func prompt(task: Int, _ range: Range<Int>) -> Tensor {
        func part(_ x: Tensor, _ axis: Int) -> Tensor {
            range.count == x.dim(axis) ? x : x.narrowed(axis: axis, range)
        }
        return part(shared.tensor, 0) * part(columns.tensor[task], 0).matmul(rows.tensor[task])
    }
}

/// One stack's part of the prompts.
final class TaskPrompt: Module, InputAdapter, AdapterModule {
    private let prompts: TaskPrompts
    private let range: Range<Int>

    init(_ prompts: TaskPrompts, rows: Range<Int>) { (self.prompts, range) = (prompts, rows) }

    override func ownParameters() -> [(key: String, parameter: Parameter)] {
        [
            ("prompt_embeddings", prompts.shared), ("prefix_task_cols", prompts.columns),
            ("prefix_task_rows", prompts.rows),
        ]
    }

    func prompt(task: Int) -> Tensor { prompts.prompt(task: task, range) }
}
