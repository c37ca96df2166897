/// One byte more: the beginnings of values, and numbers, strings and literals.
extension GrammarAutomaton {
    func advance(_ frame: Frame, _ parent: State, _ byte: UInt8, _ builder: inout Builder) {
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
    func spaced(_ frame: Frame, _ byte: UInt8) -> Frame? {
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
    func enter(
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

    func advanceScalar(_ frame: Frame, _ parent: State, _ byte: UInt8, _ builder: inout Builder) {
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
}
