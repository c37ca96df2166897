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
    private var frames: [Frame] = []
    private var frameNumbers: [Frame: Int32] = [:]
    private var sets: [StackSet] = []
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

    private struct Frame: Hashable {
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

    private struct Entry: Hashable {
        let frame: Int32
        let parent: State
    }

    private struct StackSet {
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

    private func number(_ frame: Frame) -> Int32 {
        if let known = frameNumbers[frame] { return known }
        let number = Int32(frames.count)
        frames.append(frame)
        frameNumbers[frame] = number
        return number
    }

    private func state(_ entries: [Entry]) -> State {
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
    private struct Builder {
        var entries: [Entry] = []
    }

    private func add(_ frame: Frame, _ parent: State, to builder: inout Builder) {
        add(Entry(frame: number(frame), parent: parent), to: &builder)
    }

    private func add(_ entry: Entry, to builder: inout Builder) {
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
    private func pop(_ parent: State, to builder: inout Builder) {
        for entry in sets[Int(parent)].entries { add(entry, to: &builder) }
    }

    // MARK: Steps

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

    private func advance(_ frame: Frame, _ parent: State, _ byte: UInt8, _ builder: inout Builder) {
        switch frame.kind {
        case .end: break
        case .start:
            // The space that SentencePiece's tokens begin with.
            if byte == 0x20, frame.space == 0 { return add(Frame(kind: .start, space: 1), 0, to: &builder) }
            enter(grammar.root, byte, depth: 0, &builder) { 1 }
        case .literal, .number, .range, .string: advanceScalar(frame, parent, byte, &builder)
        case .objectOpen, .objectName, .objectFreeName, .objectColon, .objectValue, .objectAfter, .objectComma:
            guard case .object(let rule) = grammar.nodes[Int(frame.node)] else { return }
            advanceObject(rule, frame, parent, byte, &builder)
        case .arrayOpen, .arrayAfter, .arrayComma:
            guard case .array(let rule) = grammar.nodes[Int(frame.node)] else { return }
            advanceArray(rule, frame, parent, byte, &builder)
        }
    }

    /// One more byte of whitespace: a space, or a line break and spaces or tabs.
    private func spaced(_ frame: Frame, _ byte: UInt8) -> Frame? {
        var frame = frame
        switch (byte, frame.space) {
        case (0x20, 0): frame.space = 1
        case (0x0A, 0): frame.space = 2
        case (0x20, 2...), (0x09, 2...):
            guard frame.space - 2 < Grammar.longestSpace else { return nil }
            frame.space += 1
        default: return nil
        }
        return frame
    }

    /// Begins a value.
    /// - Parameters:
    ///   - depth: the number of open arrays and objects.
    ///   - parent: the state after the value.
    private func enter(
        _ value: Grammar.ValueID, _ byte: UInt8, depth: Int, _ builder: inout Builder, parent: () -> State
    ) {
        for id in grammar.values[value] where depth + grammar.nodeHeights[id] <= Grammar.deepest {
            let node = Int32(id)
            switch grammar.nodes[id] {
            case .literals(let strings):
                guard let child = strings.child(0, byte) else { continue }
                arrive(Frame(kind: .literal, node: node, a: Int(child)), parent(), &builder)
            case .number:
                guard let next = NumberState.start.next(byte) else { continue }
                arrive(Frame(kind: .number, node: node, a: next.code), parent(), &builder)
            case .range(let range):
                guard let prefix = range.first(byte) else { continue }
                arrive(
                    Frame(
                        kind: .range, node: node, a: prefix.value,
                        b: (prefix.fraction + 1) << 1 | (prefix.isNegative ? 1 : 0)), parent(), &builder)
            case .string:
                if byte == UInt8(ascii: "\"") { add(Frame(kind: .string, node: node), parent(), to: &builder) }
            case .object:
                if byte == UInt8(ascii: "{") { add(Frame(kind: .objectOpen, node: node), parent(), to: &builder) }
            case .array:
                if byte == UInt8(ascii: "[") { add(Frame(kind: .arrayOpen, node: node), parent(), to: &builder) }
            }
        }
    }

    // MARK: Scalars

    /// Adds a scalar's frame, and what follows it if it may end here.
    private func arrive(_ frame: Frame, _ parent: State, _ builder: inout Builder) {
        var (canEnd, canContinue) = (false, true)
        switch (frame.kind, grammar.nodes[Int(frame.node)]) {
        case (.literal, .literals(let strings)):
            canEnd = strings.ends[frame.a] >= 0
            canContinue = !strings.children[frame.a].isEmpty
        case (.number, _):
            let number = NumberState(code: frame.a)
            canEnd = number.isComplete
            canContinue = Self.numberBytes.contains { number.next($0) != nil }
        case (.range, .range(let range)):
            let prefix = prefix(frame)
            canEnd = range.isComplete(prefix)
            canContinue = Self.numberBytes.contains { range.next(prefix, $0) != nil }
        default: break
        }
        if canContinue { add(frame, parent, to: &builder) }
        if canEnd { pop(parent, to: &builder) }
    }

    private static let numberBytes = Array("0123456789.eE+-".utf8)

    private func prefix(_ frame: Frame) -> NumberRange.Prefix {
        NumberRange.Prefix(isNegative: frame.b & 1 == 1, value: frame.a, fraction: frame.b >> 1 - 1)
    }

    private func advanceScalar(_ frame: Frame, _ parent: State, _ byte: UInt8, _ builder: inout Builder) {
        var next = frame
        switch (frame.kind, grammar.nodes[Int(frame.node)]) {
        case (.literal, .literals(let strings)):
            guard let child = strings.child(Int32(frame.a), byte) else { return }
            next.a = Int(child)
            arrive(next, parent, &builder)
        case (.number, _):
            guard let number = NumberState(code: frame.a).next(byte) else { return }
            next.a = number.code
            arrive(next, parent, &builder)
        case (.range, .range(let range)):
            guard let prefix = range.next(prefix(frame), byte) else { return }
            next.a = prefix.value
            next.b = (prefix.fraction + 1) << 1 | (prefix.isNegative ? 1 : 0)
            arrive(next, parent, &builder)
        case (.string, .string(let rule)):
            var state = StringState(place: frame.a, partial: frame.b)
            switch state.advance(byte, rule) {
            case .rejected: return
            case .ended: pop(parent, to: &builder)
            case .open:
                (next.a, next.b) = (state.place, state.partial)
                add(next, parent, to: &builder)
            }
        default: return
        }
    }

    // MARK: Objects

    /// The depth within a container with this parent.
    private func depth(_ parent: State) -> Int { sets[Int(parent)].depth + 1 }

    private func fits(_ value: Grammar.ValueID, _ depth: Int) -> Bool {
        depth + grammar.valueHeights[value] <= Grammar.deepest
    }

    /// Whether one of these properties may come, if all before `first` are over.
    private func mayCome(_ rule: Grammar.ObjectRule, _ candidates: [Int32], from first: Int, _ depth: Int) -> Bool {
        let last = rule.nextRequired[first]
        return candidates.contains {
            $0 >= first && $0 <= last && fits(rule.properties[Int($0)].value, depth)
        }
    }

    /// Whether members that the schema doesn't declare may come.
    private func additional(_ rule: Grammar.ObjectRule, from first: Int, _ depth: Int) -> Grammar.ValueID? {
        guard let value = rule.additional, rule.nextRequired[first] == rule.properties.count, fits(value, depth)
        else { return nil }
        return value
    }

    private func advanceObject(
        _ rule: Grammar.ObjectRule, _ frame: Frame, _ parent: State, _ byte: UInt8, _ builder: inout Builder
    ) {
        let depth = depth(parent)
        var next = frame
        next.space = 0
        // a is the first property that may still come, except within a name that isn't declared.
        let first = min(max(0, frame.a), rule.properties.count)
        let mayEnd = rule.nextRequired[first] == rule.properties.count
        switch frame.kind {
        case .objectOpen, .objectComma:
            let canContinue =
                mayCome(rule, rule.candidates[0], from: frame.a, depth)
                || additional(rule, from: frame.a, depth) != nil
            if byte == UInt8(ascii: "}"), frame.kind == .objectOpen, mayEnd { return pop(parent, to: &builder) }
            guard canContinue || frame.kind == .objectOpen && mayEnd else { return }
            if let space = spaced(frame, byte) { return add(space, parent, to: &builder) }
            guard byte == UInt8(ascii: "\"") else { return }
            if mayCome(rule, rule.candidates[0], from: frame.a, depth) {
                next.kind = .objectName
                next.b = 0
                add(next, parent, to: &builder)
            }
            if additional(rule, from: frame.a, depth) != nil {
                // a: the place in a character; b: the node among the declared names, or -1.
                next.kind = .objectFreeName
                (next.a, next.b) = (0, rule.names.isEmpty ? -1 : 0)
                add(next, parent, to: &builder)
            }
        case .objectName:
            guard let child = rule.names.child(Int32(frame.b), byte) else { return }
            let property = rule.names.ends[Int(child)]
            if property >= 0 {
                // The closing quote.
                guard mayCome(rule, [property], from: frame.a, depth) else { return }
                next.kind = .objectColon
                next.b = Int(property)
            } else {
                guard mayCome(rule, rule.candidates[Int(child)], from: frame.a, depth) else { return }
                next.b = Int(child)
            }
            add(next, parent, to: &builder)
        case .objectFreeName:
            advanceFreeName(rule, frame, parent, byte, &builder)
        case .objectColon:
            guard byte == UInt8(ascii: ":") else { return }
            next.kind = .objectValue
            add(next, parent, to: &builder)
        case .objectValue:
            if byte == 0x20, frame.space == 0 {
                next.space = 1
                return add(next, parent, to: &builder)
            }
            let isDeclared = frame.b < rule.properties.count
            guard let value = isDeclared ? rule.properties[frame.b].value : rule.additional else { return }
            // After a member that isn't declared, no declared one follows.
            let after = Frame(
                kind: .objectAfter, node: frame.node, a: isDeclared ? frame.b + 1 : rule.properties.count)
            enter(value, byte, depth: depth, &builder) {
                state([Entry(frame: number(after), parent: parent)])
            }
        case .objectAfter:
            if byte == UInt8(ascii: "}"), mayEnd { return pop(parent, to: &builder) }
            if mayEnd, let space = spaced(frame, byte) { return add(space, parent, to: &builder) }
            guard byte == UInt8(ascii: ","), frame.space == 0,
                mayCome(rule, rule.candidates[0], from: frame.a, depth)
                    || additional(rule, from: frame.a, depth) != nil
            else { return }
            next.kind = .objectComma
            add(next, parent, to: &builder)
        default: break
        }
    }

    /// A name that isn't declared. Next to declared names it has no escapes, so that names are equal if their bytes are.
    private func advanceFreeName(
        _ rule: Grammar.ObjectRule, _ frame: Frame, _ parent: State, _ byte: UInt8, _ builder: inout Builder
    ) {
        var next = frame
        let hasNames = !rule.names.isEmpty
        if hasNames, byte == UInt8(ascii: "\\") { return }
        let child = frame.b >= 0 ? rule.names.child(Int32(frame.b), byte) : nil
        var string = StringState(place: 0, partial: frame.a)
        switch string.advance(byte, Grammar.StringRule()) {
        case .rejected: return
        case .ended:
            // The strings of the trie end with the quote.
            guard child == nil else { return }
            next.kind = .objectColon
            (next.a, next.b) = (rule.properties.count, rule.properties.count)
        case .open: (next.a, next.b) = (string.partial, child.map { Int($0) } ?? -1)
        }
        add(next, parent, to: &builder)
    }

    // MARK: Arrays

    private func advanceArray(
        _ rule: Grammar.ArrayRule, _ frame: Frame, _ parent: State, _ byte: UInt8, _ builder: inout Builder
    ) {
        let depth = depth(parent)
        // a is the number of elements so far.
        let mayEnd = frame.a >= rule.least
        let element = rule.value(at: frame.a).flatMap { fits($0, depth) ? $0 : nil }
        let after = Frame(kind: .arrayAfter, node: frame.node, a: min(frame.a + 1, rule.distinct))
        switch frame.kind {
        case .arrayOpen, .arrayComma:
            let canEnd = frame.kind == .arrayOpen && mayEnd
            if canEnd, byte == UInt8(ascii: "]") { return pop(parent, to: &builder) }
            if canEnd || element != nil, let space = spaced(frame, byte) { return add(space, parent, to: &builder) }
            guard let element else { return }
            enter(element, byte, depth: depth, &builder) {
                state([Entry(frame: number(after), parent: parent)])
            }
        case .arrayAfter:
            if mayEnd, byte == UInt8(ascii: "]") { return pop(parent, to: &builder) }
            if mayEnd, let space = spaced(frame, byte) { return add(space, parent, to: &builder) }
            guard byte == UInt8(ascii: ","), frame.space == 0, element != nil else { return }
            add(Frame(kind: .arrayComma, node: frame.node, a: frame.a), parent, to: &builder)
        default: break
        }
    }
}
