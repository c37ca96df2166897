import Torch

/// Bytes of resident memory at the peak of a training run, by use.
public struct MemoryLedger: Sendable, Equatable {
    /// The pages of the model's weights that training touches, and the adapter's weights.
    package var weights = 0
    /// Gradients that exist at the peak: the backward pass computes them one at a time.
    package var gradients = 0
    package var optimizerStates = 0
    /// Tensors that the forward pass saves for the backward pass.
    package var activations = 0
    /// One chunk of logits with its gradient.
    package var logits = 0
    /// Temporary tensors of the operation that runs at the peak.
    package var temporaries = 0
    /// Freed blocks that the allocator keeps (fragmentation).
    package var allocator = 0
    /// The process without a model: program, libraries, tokenizer.
    package var baseline = 0

    package init() {}

    /// The sum, in bytes.
    public var total: Int { entries.reduce(0) { $0 + $1.bytes } }

    /// The terms with their JSON keys and titles.
    public var entries: [(name: String, title: String, bytes: Int)] {
        [
            ("weights", "weights", weights), ("gradients", "gradients", gradients),
            ("optimizerStates", "optimizer states", optimizerStates), ("activations", "activations", activations),
            ("logits", "logits", logits), ("temporaries", "temporaries", temporaries),
            ("allocator", "allocator overhead", allocator), ("baseline", "process", baseline),
        ]
    }

    /// The largest term.
    package var largest: (name: String, title: String, bytes: Int) {
        entries.max { $0.bytes < $1.bytes } ?? ("weights", "weights", weights)
    }

    /// Names of the log's marks at which the next phase of a step begins.
    enum Mark {
        static let optimizer = "optimizer", forward = "forward", backward = "backward", update = "update"
    }

    /// Finds the peak of a log of steps and the blocks that are alive at it. The allocator's part is what the heap's highest address
    /// in the whole log, up to which memory stays resident, exceeds that peak by.
    init(_ log: MemoryLog) {
        enum Kind { case weights, optimizerStates, logits, forward, backward, update }
        var marks = log.marks[...]
        var (phase, isLogits) = (Kind.weights, false)
        var made: [Int: (kind: Kind, bytes: Int, index: Int)] = [:]
        var freed: [Int: Int] = [:]
        var heap = HeapModel()
        var (sum, peak) = (0, (bytes: 0, index: -1))
        for (index, event) in log.events.enumerated() {
            while let mark = marks.first, mark.place <= index {
                phase =
                    switch mark.name {
                    case Mark.optimizer: .optimizerStates
                    case Mark.forward: .forward
                    case Mark.backward: .backward
                    default: .update
                    }
                marks.removeFirst()
            }
            switch event {
            case .logits(let begins): isLogits = begins
            case .made(let block, let bytes):
                made[block] = (isLogits ? .logits : phase, bytes, index)
                heap.make(block, bytes: bytes)
                sum += bytes
                if sum > peak.bytes { peak = (sum, index) }
            case .freed(let block):
                heap.free(block)
                freed[block] = index
                sum -= made[block]?.bytes ?? 0
            }
        }
        let backwards = log.marks.filter { $0.name == Mark.backward }.map(\.place)
        let updates = log.marks.filter { $0.name == Mark.update }.map(\.place)
        for (block, entry) in made where entry.index <= peak.index {
            let end = freed[block] ?? log.events.count
            guard end > peak.index else { continue }
            /// Whether it outlives the phase of the step that it was allocated in.
            func survives(_ places: [Int]) -> Bool { places.first { $0 > entry.index }.map { end >= $0 } ?? false }
            switch entry.kind {
            case .weights: weights += entry.bytes
            case .optimizerStates: optimizerStates += entry.bytes
            case .logits: logits += entry.bytes
            case .forward where survives(backwards): activations += entry.bytes
            case .backward where survives(updates): gradients += entry.bytes
            default: temporaries += entry.bytes
            }
        }
        allocator = max(0, heap.top - peak.bytes)
    }
}
