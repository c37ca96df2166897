import Foundation

/// Reads bytes under a ``Grammar``, and computes which tokens may follow.
///
/// Where alternatives begin alike, several readings of a text are open. Each is a stack of frames: a place in a
/// scalar on top of the places in the arrays and objects around it. A state of the automaton is a set of stacks, as a
/// trie from the top down whose nodes are shared (a graph-structured stack, Tomita 1985), so that its size is bounded
/// by the grammar and the depth, and not by the number of readings. States, transitions and masks are cached.
///
/// All sequences of a batch, or of many requests with the same schema, share one automaton.
final class GrammarAutomaton: @unchecked Sendable {
    typealias State = Int32

    static let dead: State = -1

    let grammar: Grammar
    let vocabulary: ConstraintVocabulary
    private let lock = NSLock()
    /// Changes whenever the caches are emptied, which makes states invalid.
    private var epoch = 0
    private(set) var frames: [Frame] = []
    private var frameNumbers: [Frame: Int32] = [:]
    private(set) var sets: [StackSet] = []
    private var setNumbers: [[Entry]: State] = [:]
    private var unions: [UInt64: State] = [:]
    /// The row of `transitions` of each state, or -1.
    private var rows: [Int32] = []
    private var transitions: [State] = []
    private var masks: [[Entry]: TokenMask] = [:]

    private static let unknown: State = -2
    /// Maximum numbers between two uses; a single use adds only a bounded number.
    private static let setLimit = 60_000
    private static let rowLimit = 12_000
    /// Masks take up to this many bytes.
    private static let maskBytes = 32 << 20

    struct Frame: Hashable {
        enum Kind: UInt8 {
            case start, end
            case literal, number, range, string
            case objectOpen, objectName, objectFreeName, objectColon, objectValue, objectAfter, objectComma
            case arrayOpen, arrayAfter, arrayComma
        }

        var kind: Kind
        /// Whitespace so far: 1 after a space, n + 2 after a line break and n spaces.
        var space: Int16 = 0
        var node: Int32 = 0
        var a: Int = 0
        var b: Int = 0
    }

    struct Entry: Hashable {
        let frame: Int32
        let parent: State
    }

    struct StackSet {
        /// Sorted by frame, each of which occurs once.
        let entries: [Entry]
        /// The number of open arrays and objects, equal in all stacks.
        let depth: Int
        let isComplete: Bool
    }

    /// A place in a sequence.
    struct Position: Sendable {
        fileprivate var state: State
        fileprivate var epoch: Int
    }

    init(_ grammar: Grammar, _ vocabulary: ConstraintVocabulary) {
        (self.grammar, self.vocabulary) = (grammar, vocabulary)
        reset()
    }

    private func reset() {
        epoch += 1
        frames.removeAll(keepingCapacity: true)
        frameNumbers.removeAll(keepingCapacity: true)
        sets.removeAll(keepingCapacity: true)
        setNumbers.removeAll(keepingCapacity: true)
        unions.removeAll(keepingCapacity: true)
        rows.removeAll(keepingCapacity: true)
        transitions.removeAll(keepingCapacity: true)
        masks.removeAll(keepingCapacity: true)
        // 0: no stack; 1: the end of the text; 2: its start.
        _ = state([])
        _ = state([Entry(frame: number(Frame(kind: .end)), parent: 0)])
        _ = state([Entry(frame: number(Frame(kind: .start)), parent: 0)])
    }

    // MARK: Use by sequences

    var start: Position { lock.withLock { Position(state: 2, epoch: epoch) } }

    /// Whether the text may end at a position.
    func isComplete(_ position: inout Position, _ text: [UInt8]) -> Bool {
        lock.withLock { sets[Int(current(&position, text))].isComplete }
    }

    /// Whether the text can only end at a position.
    func mustEnd(_ position: inout Position, _ text: [UInt8]) -> Bool {
        lock.withLock {
            let set = sets[Int(current(&position, text))]
            return set.isComplete && set.entries.count == 1
        }
    }

    /// The position after `bytes`; `nil` if they are not allowed.
    /// - Parameter text: the bytes before.
    func position(after position: Position, _ text: [UInt8], _ bytes: [UInt8]) -> Position? {
        lock.withLock {
            var position = position
            var state = current(&position, text)
            for byte in bytes {
                state = step(state, byte)
                if state == Self.dead { return nil }
            }
            return Position(state: state, epoch: epoch)
        }
    }

    /// The tokens that may follow, end tokens included.
    func mask(_ position: inout Position, _ text: [UInt8]) -> TokenMask {
        lock.withLock {
            let state = current(&position, text)
            let key = maskKey(state)
            if let known = masks[key] { return known }
            let mask = computedMask(state)
            if masks.count * (mask.words.count * 8 + 64) > Self.maskBytes { masks.removeAll(keepingCapacity: true) }
            masks[key] = mask
            return mask
        }
    }

    /// The state of a position; the text is read again if the caches were emptied since.
    private func current(_ position: inout Position, _ text: [UInt8]) -> State {
        if sets.count > Self.setLimit || transitions.count > Self.rowLimit << 8 { reset() }
        if position.epoch != epoch {
            var state: State = 2
            for byte in text where state != Self.dead { state = step(state, byte) }
            position = Position(state: max(0, state), epoch: epoch)
        }
        return position.state
    }

    // MARK: Masks

    private func computedMask(_ start: State) -> TokenMask {
        var mask = TokenMask(vocabulary: vocabulary.size)
        // The states after each byte of the current token, as far as they are known.
        var states = [State](repeating: start, count: vocabulary.longest + 1)
        var known = 0
        var index = 0
        let (order, common) = (vocabulary.order, vocabulary.common)
        while index < order.count {
            let bytes = vocabulary.bytes[order[index]]
            var depth = min(common[index], known)
            while depth < bytes.count {
                let next = step(states[depth], bytes[depth])
                if next == Self.dead { break }
                depth += 1
                states[depth] = next
            }
            known = depth
            let isAllowed = depth == bytes.count
            if isAllowed { mask.insert(order[index]) }
            index += 1
            // All tokens that begin with the rejected byte.
            if !isAllowed { while index < order.count, common[index] > depth { index += 1 } }
        }
        if sets[Int(start)].isComplete { for token in vocabulary.endTokens { mask.insert(token) } }
        return mask
    }

    /// The state, with lengths that no token can exhaust as one length.
    private func maskKey(_ state: State) -> [Entry] {
        let longest = vocabulary.longest
        return sets[Int(state)].entries.map { entry in
            var frame = frames[Int(entry.frame)]
            guard frame.kind == .string, case .string(let rule) = grammar.nodes[Int(frame.node)],
                rule.automaton == nil, rule.least > 0 || rule.most != nil
            else { return entry }
            let missing = min(max(0, rule.least - frame.a), longest + 1)
            let room = rule.most.map { min($0 - frame.a, longest + 1) } ?? longest + 1
            // Negative, so that it is no length.
            frame.a = -1 - (missing * (longest + 2) + room)
            return Entry(frame: number(frame), parent: entry.parent)
        }
    }

    // MARK: States

    func number(_ frame: Frame) -> Int32 {
        if let known = frameNumbers[frame] { return known }
        let number = Int32(frames.count)
        frames.append(frame)
        frameNumbers[frame] = number
        return number
    }

    func state(_ entries: [Entry]) -> State {
        if let known = setNumbers[entries] { return known }
        var depth = 0
        var isComplete = false
        for entry in entries {
            let kind = frames[Int(entry.frame)].kind
            if kind == .end { isComplete = true }
            let isContainer = kind.rawValue >= Frame.Kind.objectOpen.rawValue
            // That of the parent is known: it was made before.
            depth = (sets.isEmpty ? 0 : sets[Int(entry.parent)].depth) + (isContainer ? 1 : 0)
        }
        let number = State(sets.count)
        sets.append(StackSet(entries: entries, depth: depth, isComplete: isComplete))
        rows.append(-1)
        setNumbers[entries] = number
        return number
    }

    private func union(_ a: State, _ b: State) -> State {
        if a == b { return a }
        let key = UInt64(UInt32(bitPattern: min(a, b))) << 32 | UInt64(UInt32(bitPattern: max(a, b)))
        if let known = unions[key] { return known }
        let (left, right) = (sets[Int(a)].entries, sets[Int(b)].entries)
        var merged: [Entry] = []
        var (i, j) = (0, 0)
        while i < left.count || j < right.count {
            if j == right.count || i < left.count && left[i].frame < right[j].frame {
                merged.append(left[i])
                i += 1
            } else if i == left.count || right[j].frame < left[i].frame {
                merged.append(right[j])
                j += 1
            } else {
                merged.append(Entry(frame: left[i].frame, parent: union(left[i].parent, right[j].parent)))
                (i, j) = (i + 1, j + 1)
            }
        }
        let result = state(merged)
        unions[key] = result
        return result
    }

    /// The entries of a state in the making.
    struct Builder {
        var entries: [Entry] = []
    }

    func add(_ frame: Frame, _ parent: State, to builder: inout Builder) {
        add(Entry(frame: number(frame), parent: parent), to: &builder)
    }

    func add(_ entry: Entry, to builder: inout Builder) {
        var (low, high) = (0, builder.entries.count)
        while low < high {
            let middle = (low + high) / 2
            if builder.entries[middle].frame < entry.frame { low = middle + 1 } else { high = middle }
        }
        if low < builder.entries.count, builder.entries[low].frame == entry.frame {
            let merged = union(builder.entries[low].parent, entry.parent)
            builder.entries[low] = Entry(frame: entry.frame, parent: merged)
        } else {
            builder.entries.insert(entry, at: low)
        }
    }

    /// The value on top is complete.
    func pop(_ parent: State, to builder: inout Builder) {
        for entry in sets[Int(parent)].entries { add(entry, to: &builder) }
    }

    private func step(_ state: State, _ byte: UInt8) -> State {
        let row = rows[Int(state)]
        if row >= 0 {
            let known = transitions[Int(row) << 8 | Int(byte)]
            if known != Self.unknown { return known }
        } else {
            rows[Int(state)] = Int32(transitions.count >> 8)
            transitions.append(contentsOf: repeatElement(Self.unknown, count: 256))
        }
        var builder = Builder()
        for entry in sets[Int(state)].entries {
            advance(frames[Int(entry.frame)], entry.parent, byte, &builder)
        }
        let next = builder.entries.isEmpty ? Self.dead : self.state(builder.entries)
        transitions[Int(rows[Int(state)]) << 8 | Int(byte)] = next
        return next
    }
}
