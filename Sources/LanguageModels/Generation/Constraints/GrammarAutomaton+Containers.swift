/// One byte more of objects and arrays, outside of their members' values.
extension GrammarAutomaton {
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

    func advanceObject(
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

    func advanceArray(
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
