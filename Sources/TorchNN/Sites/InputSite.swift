import Torch

/// Role of a stack of layers.
public enum StackRole: String, Sendable { case encoder, decoder }

/// Packed hidden states with virtual tokens before each sequence's own.
package struct PromptedRows {
    /// `[tokens, size]`
    package let states: Tensor
    /// Where each sequence starts, including virtual tokens: rows + 1 entries.
    package let offsets: [Int]
    /// Number of virtual tokens of each sequence.
    package let prompts: [Int]

    package init(states: Tensor, offsets: [Int], prompts: [Int]) {
        (self.states, self.offsets, self.prompts) = (states, offsets, prompts)
    }

    /// Removes the virtual tokens' positions from a stack's output: packed `[tokens, …]`.
    package func withoutPrompts(_ x: Tensor) -> Tensor {
        guard prompts.contains(where: { $0 > 0 }) else { return x }
        return Tensor.concatenated(
            prompts.indices.map { x.narrowed(axis: 0, (offsets[$0] + prompts[$0])..<offsets[$0 + 1]) })
    }
}

/// The input of a stack of layers, where soft prompts are prepended (Lester et al. 2021).
public final class InputSite: Module, AdapterSite {
    /// The stack whose input it is.
    public let role: StackRole
    /// Size of the hidden states.
    public let size: Int
    /// Whether virtual tokens can be prepended.
    package let takesPrompts: Bool
    private var slot = AdapterSlot<any InputAdapter>()

    package init(_ role: StackRole, size: Int, takesPrompts: Bool = true) {
        (self.role, self.size, self.takesPrompts) = (role, size, takesPrompts)
    }

    /// Prepends the virtual tokens of all adapters to each sequence of packed x `[tokens, size]`.
    package func callAsFunction(_ x: Tensor, offsets: [Int]) -> PromptedRows {
        let rows = offsets.count - 1
        guard !slot.isEmpty else {
            return PromptedRows(states: x, offsets: offsets, prompts: Array(repeating: 0, count: rows))
        }
        let prompts = prompts(forRows: rows)
        var parts: [Tensor] = []
        var newOffsets = [0]
        for row in 0..<rows {
            if let prompt = prompts[row] { parts.append(prompt) }
            parts.append(x.narrowed(axis: 0, offsets[row]..<offsets[row + 1]))
            newOffsets.append(newOffsets[row] + (prompts[row]?.dim(0) ?? 0) + offsets[row + 1] - offsets[row])
        }
        return PromptedRows(
            states: Tensor.concatenated(parts), offsets: newOffsets, prompts: prompts.map { $0?.dim(0) ?? 0 })
    }

    /// The virtual tokens `[tokens, size]` of each sequence, in input order.
    package func prompts(forRows rows: Int) -> [Tensor?] {
        let routes = RowRouting.current?.routes(forRows: rows)
        let tasks = RowTasks.tasks(forRows: rows)
        var made: [[Int]: Tensor?] = [:]
        return (0..<rows).map { row in
            let adapters = routes.map { slot.routed[$0[row]] ?? [] } ?? slot.active
            let key = [routes?[row] ?? -1, tasks[row]]
            if let known = made[key] { return known }
            let prompts = adapters.map { $0.prompt(task: tasks[row]) }
            let prompt = prompts.count > 1 ? Tensor.concatenated(prompts) : prompts.first
            made[key] = .some(prompt)
            return prompt
        }
    }

    package func attach(_ adapter: Module, route: Int?) -> Bool { slot.attach(adapter, route: route) }
    package func attachBeneath(_ adapter: Module) { slot.attachBeneath(adapter) }
    package func detach(_ adapter: Module) { slot.detach(adapter) }
    package func clear(route: Int) { slot.clear(route: route) }
    package var attached: [Module] { slot.modules }
}

/// An adapter that prepends virtual tokens to the embedded input.
public protocol InputAdapter: Module {
    /// The virtual tokens, `[tokens, size]`; `task` is the sequence's task index, 0 if there is only one.
    func prompt(task: Int) -> Tensor
}

/// Task index of each sequence, for methods that share a prompt among tasks.
package enum RowTasks {
    @TaskLocal private static var current: [Int] = []

    /// Runs a forward pass over sequences of these tasks.
    package static func run<Result>(_ tasks: [Int], _ body: () throws -> Result) rethrows -> Result {
        try $current.withValue(tasks, operation: body)
    }

    static func tasks(forRows count: Int) -> [Int] {
        guard !current.isEmpty else { return Array(repeating: 0, count: count) }
        let beams = max(1, count / current.count)
        let tasks = current.flatMap { Array(repeating: $0, count: beams) }
        return tasks.count == count ? tasks : Array(repeating: tasks.first ?? 0, count: count)
    }
}
