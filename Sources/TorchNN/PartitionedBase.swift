import PEFTSupport
import Torch

/// A layer that a stack calls through ``checkpointed(_:_:_:)``.
package protocol StackedLayer: Module {}

/// The frozen weights of a base model, of which each of N processes keeps 1/N (ZeRO, stage 3, Rajbhandari et al. 2020;
/// FullyShardedDataParallel, Zhao et al. 2023). Activations are not divided.
///
/// A part is a layer, the embedding table or the output layer. Its bytes are gathered before the part computes, in the
/// forward and again in the backward pass, and released afterwards; meanwhile the next part is on its way. All ranks
/// use the parts in the same order, as each gathering needs all of them.
package final class PartitionedBase {
    /// Tensors that are gathered together.
    package final class Part {
        private unowned let base: PartitionedBase
        fileprivate let index: Int
        fileprivate var tensors: [PartitionedTensor] = []

        fileprivate init(_ base: PartitionedBase, index: Int) { (self.base, self.index) = (base, index) }

        fileprivate var byteCount: Int { tensors.reduce(0) { $0 + $1.byteCount } }

        /// Adds an adapter's frozen tensors that the part computes with. The part is not here afterwards.
        package func add(_ tensors: [Tensor]) throws {
            base.release(self)
            for tensor in tensors { try base.add(tensor, to: self) }
        }

        /// Gathers the part, until another one is.
        package func gather() throws { try base.gather(self) }

        /// Gathers the part for `body`, and again in the backward pass of what it returns.
        fileprivate func computing(_ body: () -> Tensor, inBackward: Bool) -> Tensor {
            base.computing(self, body, inBackward: inBackward)
        }
    }

    private let group: ProcessGroup
    private let smallestBytes: Int
    private var parts: [Part] = []
    /// Partitioned tensors and their parts, by the tensors' identity.
    private var known: [ObjectIdentifier: (tensor: PartitionedTensor, part: Part)] = [:]
    /// Parts whose tensors are here or on their way.
    private var resident: [Part] = []
    /// Parts that compute at the moment, the outermost first.
    private var running: [Part] = []
    /// The part that was gathered after two others the last time: passes repeat.
    private var successors: [Pair: Part] = [:]
    private var (before, latest): (Part?, Part?) = (nil, nil)

    private struct Pair: Hashable {
        let first: Int?
        let second: Int
    }

    /// Bytes of all partitioned tensors.
    package private(set) var byteCount = 0
    /// Bytes of them that this process keeps.
    package private(set) var ownByteCount = 0
    /// The most bytes that were gathered, or on their way, at any time.
    package private(set) var peakGatheredBytes = 0
    /// Bytes of the largest part.
    package var largestPartBytes: Int { parts.map(\.byteCount).max() ?? 0 }
    /// Number of times that a part was gathered.
    package private(set) var gatherCount = 0

    /// - Parameter smallestBytes: smaller tensors stay whole, as do vectors of less than 256 times as many bytes, for which a
    ///   message isn't worth while.
    package init(_ group: ProcessGroup, smallestBytes: Int = 1024) {
        (self.group, self.smallestBytes) = (group, smallestBytes)
    }

    // MARK: Partitioning

    /// Makes a module a part, and partitions its tensors.
    package func add(_ module: Module) throws {
        let part = Part(self, index: parts.count)
        for (_, parameter) in module.parameters() { try add(parameter.tensor, to: part) }
        guard !part.tensors.isEmpty else { return }
        parts.append(part)
        module.part = part
    }

    private func add(_ tensor: Tensor, to part: Part) throws {
        let isSmall = tensor.byteCount < (tensor.rank < 2 ? 256 * smallestBytes : smallestBytes)
        guard !isSmall, known[ObjectIdentifier(tensor)] == nil else { return }
        let partitioned = try PartitionedTensor(tensor, group)
        known[ObjectIdentifier(tensor)] = (partitioned, part)
        part.tensors.append(partitioned)
        byteCount += partitioned.byteCount
        ownByteCount += partitioned.ownByteCount
    }

    /// The partitioned tensor that is this one.
    package func partitioned(_ tensor: Tensor) -> PartitionedTensor? { known[ObjectIdentifier(tensor)]?.tensor }

    /// Gathers the part of a tensor, if it has one, until another part is gathered.
    package func gather(partOf tensor: Tensor) throws {
        if let part = known[ObjectIdentifier(tensor)]?.part { try gather(part) }
    }

    // MARK: Computing

    fileprivate func computing(_ part: Part, _ body: () -> Tensor, inBackward: Bool) -> Tensor {
        do { try gather(part) } catch { reportFailure(error as? PEFTError ?? PEFTError("\(error)")) }
        running.append(part)
        let result = body()
        running.removeLast()
        if !running.contains(where: { $0 === part }) { release(part) }
        if inBackward, result.requiresGrad { result.onGradient { [self] in try gather(part) } }
        return result
    }

    /// Gathers a part, and starts to gather the one that will probably follow. In the backward pass, the parts that ran
    /// after this one are done: autograd runs what was computed last first.
    fileprivate func gather(_ part: Part) throws {
        if let latest { successors[Pair(first: before?.index, second: latest.index)] = part }
        (before, latest) = (latest, part)
        let next = successors[Pair(first: before?.index, second: part.index)]
        for other in resident where other !== part && other !== next && !running.contains(where: { $0 === other }) {
            release(other)
        }
        gatherCount += 1
        for part in [part, next].compactMap({ $0 }) {
            if !resident.contains(where: { $0 === part }) { resident.append(part) }
            peakGatheredBytes = max(peakGatheredBytes, resident.reduce(0) { $0 + $1.byteCount })
            for tensor in part.tensors { try tensor.start() }
        }
        for tensor in part.tensors { try tensor.wait() }
    }

    private func release(_ part: Part) {
        for tensor in part.tensors { tensor.drop() }
        resident.removeAll { $0 === part }
    }
}

extension Module {
    /// Runs `body`, which computes with this module's weights, and gathers them for it if they are partitioned.
    /// - Parameter inBackward: whether the backward pass of what `body` returns needs them, too.
    package func gathered(inBackward: Bool = true, _ body: () -> Tensor) -> Tensor {
        part?.computing(body, inBackward: inBackward) ?? body()
    }
}
