import PEFTSupport

/// The regular part of ECMAScript's regular expressions, which JSON Schema's `pattern` uses: literals, classes, groups,
/// alternatives, repetitions and the anchors `^` and `$`. Look-around, backreferences and flags are rejected by name.
indirect enum RegularExpression: Sendable {
    case empty
    case scalars([ClosedRange<UInt32>])
    case sequence([RegularExpression])
    case alternatives([RegularExpression])
    case repetition(RegularExpression, least: Int, most: Int?)
    case start
    case end

    /// - Throws: ``PEFTError`` naming what is unsupported.
    init(_ pattern: String) throws {
        var parser = Parser(pattern)
        guard parser.count <= 10_000 else { throw parser.failure("more than 10000 characters") }
        self = try parser.alternatives(depth: 0)
        guard parser.isAtEnd else { throw parser.failure("an unmatched ')'") }
    }

    // MARK: Sets of scalars

    static let any: [ClosedRange<UInt32>] = [0...0xD7FF, 0xE000...0x10FFFF]
    private static let digits: [ClosedRange<UInt32>] = [0x30...0x39]
    private static let word: [ClosedRange<UInt32>] = [0x30...0x39, 0x41...0x5A, 0x5F...0x5F, 0x61...0x7A]
    /// ASCII's whitespace, which ECMAScript and Python have in common.
    private static let space: [ClosedRange<UInt32>] = [0x09...0x0D, 0x20...0x20]
    /// What is whitespace for one of them.
    private static let anySpace: [ClosedRange<UInt32>] = [
        0x09...0x0D, 0x1C...0x20, 0x85...0x85, 0xA0...0xA0, 0x1680...0x1680, 0x2000...0x200A, 0x2028...0x2029,
        0x202F...0x202F, 0x205F...0x205F, 0x3000...0x3000, 0xFEFF...0xFEFF,
    ]
    private static let lineEnds: [ClosedRange<UInt32>] = [0x0A...0x0A, 0x0D...0x0D, 0x2028...0x2029]

    /// Sorted, disjoint and within Unicode's scalars.
    static func union(_ ranges: [ClosedRange<UInt32>]) -> [ClosedRange<UInt32>] {
        var result: [ClosedRange<UInt32>] = []
        for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            if let last = result.last, range.lowerBound <= last.upperBound &+ 1 {
                result[result.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
            } else {
                result.append(range)
            }
        }
        return result.flatMap { range -> [ClosedRange<UInt32>] in
            any.compactMap { $0.overlaps(range) ? $0.clamped(to: range) : nil }
        }
    }

    /// Whether sorted, disjoint ranges contain a scalar.
    static func contains(_ ranges: [ClosedRange<UInt32>], _ scalar: UInt32) -> Bool {
        var (low, high) = (0, ranges.count)
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upperBound < scalar { low = middle + 1 } else { high = middle }
        }
        return low < ranges.count && ranges[low].lowerBound <= scalar
    }

    static func complement(_ ranges: [ClosedRange<UInt32>]) -> [ClosedRange<UInt32>] {
        var result: [ClosedRange<UInt32>] = []
        var next: UInt32 = 0
        for range in union(ranges) {
            if range.lowerBound > next { result.append(next...(range.lowerBound - 1)) }
            next = range.upperBound + 1
        }
        if next <= 0x10FFFF { result.append(next...0x10FFFF) }
        return union(result)
    }

    // MARK: Parser

    private struct Parser {
        private let pattern: String
        private let scalars: [Unicode.Scalar]
        private var index = 0

        init(_ pattern: String) {
            self.pattern = pattern
            scalars = Array(pattern.unicodeScalars)
        }

        var count: Int { scalars.count }
        var isAtEnd: Bool { index >= scalars.count }
        private var peek: Unicode.Scalar? { isAtEnd ? nil : scalars[index] }

        func failure(_ what: String) -> PEFTError {
            PEFTError(
                "the pattern '\(pattern.prefix(80))' has \(what)",
                remedy: "use literals, classes, groups, |, repetitions, ^ and $ only")
        }

        private mutating func take(_ scalar: Unicode.Scalar) -> Bool {
            guard peek == scalar else { return false }
            index += 1
            return true
        }

        mutating func alternatives(depth: Int) throws -> RegularExpression {
            guard depth < 100 else { throw failure("too many nested groups") }
            var list = [try sequence(depth: depth)]
            while take("|") { list.append(try sequence(depth: depth)) }
            return list.count == 1 ? list[0] : .alternatives(list)
        }

        private mutating func sequence(depth: Int) throws -> RegularExpression {
            var list: [RegularExpression] = []
            while let scalar = peek, scalar != "|", scalar != ")" {
                index += 1
                let atom: RegularExpression
                switch scalar {
                case "^": atom = .start
                case "$": atom = .end
                case "(": atom = try group(depth: depth)
                case "[": atom = .scalars(try characterClass())
                case ".": atom = .scalars(RegularExpression.complement(lineEnds))
                case "\\": atom = .scalars(try escape(inClass: false))
                case "*", "+", "?": throw failure("'\(scalar)' with nothing before it")
                default: atom = .scalars([scalar.value...scalar.value])
                }
                list.append(try repeated(atom))
            }
            return list.count == 1 ? list[0] : list.isEmpty ? .empty : .sequence(list)
        }

        private mutating func repeated(_ atom: RegularExpression) throws -> RegularExpression {
            let bounds: (least: Int, most: Int?)
            if take("*") {
                bounds = (0, nil)
            } else if take("+") {
                bounds = (1, nil)
            } else if take("?") {
                bounds = (0, 1)
            } else if peek == "{", let counted = try counts() {
                bounds = counted
            } else {
                return atom
            }
            // A lazy repetition matches the same strings.
            _ = take("?")
            if case .start = atom { throw failure("a repeated anchor") }
            if case .end = atom { throw failure("a repeated anchor") }
            if let next = peek, "*+?".unicodeScalars.contains(next) { throw failure("'\(next)' after a repetition") }
            return .repetition(atom, least: bounds.least, most: bounds.most)
        }

        /// `{n}`, `{n,}` or `{n,m}`; `nil` if the brace is a literal.
        private mutating func counts() throws -> (least: Int, most: Int?)? {
            var end = index + 1
            while end < scalars.count, scalars[end] == "," || ("0"..."9").contains(scalars[end]) { end += 1 }
            guard end < scalars.count, scalars[end] == "}" else { return nil }
            var text = ""
            text.unicodeScalars.append(contentsOf: scalars[(index + 1)..<end])
            let parts = text.split(separator: ",", omittingEmptySubsequences: false)
            guard (1...2).contains(parts.count), !parts[0].isEmpty else { return nil }
            guard let least = Int(parts[0]), least <= 1000 else { throw failure("a repetition above 1000") }
            var most: Int? = least
            if parts.count == 2 { most = parts[1].isEmpty ? nil : Int(parts[1]) ?? .max }
            if let most, most > 1000 || most < least { throw failure("the repetition {\(text)}") }
            index = end + 1
            return (least, most)
        }

        private mutating func group(depth: Int) throws -> RegularExpression {
            if take("?") {
                if take(":") {
                } else if peek == "<", index + 1 < scalars.count, scalars[index + 1] != "=", scalars[index + 1] != "!"
                {
                    while let scalar = peek, scalar != ">" {
                        _ = scalar
                        index += 1
                    }
                    guard take(">") else { throw failure("an unfinished group name") }
                } else {
                    throw failure("a look-around or flags '(?\(peek.map { String($0) } ?? "")', which is not regular")
                }
            }
            let inner = try alternatives(depth: depth + 1)
            guard take(")") else { throw failure("an unmatched '('") }
            return inner
        }

        private mutating func characterClass() throws -> [ClosedRange<UInt32>] {
            let isNegated = take("^")
            var ranges: [ClosedRange<UInt32>] = []
            guard peek != "]" else { throw failure("an empty class") }
            while !take("]") {
                let low = try classAtom()
                guard peek == "-", index + 1 < scalars.count, scalars[index + 1] != "]" else {
                    ranges += low
                    continue
                }
                index += 1
                let high = try classAtom()
                guard low.count == 1, high.count == 1, low[0].count == 1, high[0].count == 1,
                    low[0].lowerBound <= high[0].lowerBound
                else { throw failure("an invalid range in a class") }
                ranges.append(low[0].lowerBound...high[0].lowerBound)
            }
            return isNegated ? RegularExpression.complement(ranges) : RegularExpression.union(ranges)
        }

        private mutating func classAtom() throws -> [ClosedRange<UInt32>] {
            guard let scalar = peek else { throw failure("an unfinished class") }
            index += 1
            return scalar == "\\" ? try escape(inClass: true) : [scalar.value...scalar.value]
        }

        private mutating func escape(inClass: Bool) throws -> [ClosedRange<UInt32>] {
            guard let scalar = peek else { throw failure("an unfinished escape") }
            index += 1
            switch scalar {
            case "d": return digits
            case "D": return RegularExpression.complement(digits)
            case "w": return word
            case "W": return RegularExpression.complement(word)
            case "s": return space
            case "S": return RegularExpression.complement(anySpace)
            case "t": return [0x09...0x09]
            case "n": return [0x0A...0x0A]
            case "v": return [0x0B...0x0B]
            case "f": return [0x0C...0x0C]
            case "r": return [0x0D...0x0D]
            case "b" where inClass: return [0x08...0x08]
            case "x": return try hexadecimal(2)
            case "u": return try hexadecimal(4)
            default:
                guard scalar.isASCII, !scalar.properties.isAlphabetic, !("0"..."9").contains(Character(scalar))
                else { throw failure("the escape '\\\(scalar)', which is not supported") }
                return [scalar.value...scalar.value]
            }
        }

        private mutating func hexadecimal(_ count: Int) throws -> [ClosedRange<UInt32>] {
            var value: UInt32 = 0
            for _ in 0..<count {
                guard let digit = peek.flatMap({ Character($0).hexDigitValue }) else {
                    throw failure("an unfinished hexadecimal escape")
                }
                value = value << 4 | UInt32(digit)
                index += 1
            }
            guard Unicode.Scalar(value) != nil else { throw failure("a surrogate") }
            return [value...value]
        }
    }
}

extension ScalarAutomaton {
    /// The strings in which the expression matches somewhere, as JSON Schema defines `pattern`; `nil` if there are none.
    ///
    /// - Parameter budget: how many steps it may take, of which those that it takes are subtracted.
    /// - Throws: ``Failure`` if that takes too many states or steps.
    init?(_ expression: RegularExpression, stateLimit: Int = 2_000, budget: inout Int) throws(Failure) {
        // One pattern may not take all.
        var own = min(budget, 1_000_000)
        let start = own
        defer { budget -= start - own }
        try self.init(expression, stateLimit: stateLimit, steps: &own)
    }

    private init?(_ expression: RegularExpression, stateLimit: Int, steps: inout Int) throws(Failure) {
        var builder = NFA()
        let start = try builder.state()
        let inner = try builder.state()
        let end = try builder.state()
        // What stands before and after the match.
        builder.edges[start].append((RegularExpression.any, start))
        builder.jumps[start].append((inner, .none))
        try builder.add(expression, from: inner, to: end)
        builder.edges[end].append((RegularExpression.any, end))
        let (transitions, accepts) = try builder.determinized(
            start: start, end: end, stateLimit: stateLimit, budget: &steps)
        self.init(trimming: transitions, accepts: accepts)
    }

    /// A nondeterministic automaton (Thompson 1968) with anchors as conditions of jumps.
    private struct NFA {
        enum Condition { case none, start, end }

        var jumps: [[(target: Int, condition: Condition)]] = []
        var edges: [[(ranges: [ClosedRange<UInt32>], target: Int)]] = []
        /// Number of parts, repeated ones included. Alternatives have no states of their own.
        private var parts = 0

        mutating func state() throws(Failure) -> Int {
            guard jumps.count < 4_000 else { throw Failure() }
            jumps.append([])
            edges.append([])
            return jumps.count - 1
        }

        mutating func add(_ expression: RegularExpression, from: Int, to: Int) throws(Failure) {
            parts += 1
            guard parts < 40_000 else { throw Failure() }
            switch expression {
            case .empty: jumps[from].append((to, .none))
            case .start: jumps[from].append((to, .start))
            case .end: jumps[from].append((to, .end))
            case .scalars(let ranges): edges[from].append((ranges, to))
            case .sequence(let parts):
                var place = from
                for part in parts {
                    let next = try state()
                    try add(part, from: place, to: next)
                    place = next
                }
                jumps[place].append((to, .none))
            case .alternatives(let parts):
                for part in parts { try add(part, from: from, to: to) }
            case .repetition(let part, let least, let most):
                var place = from
                for _ in 0..<least {
                    let next = try state()
                    try add(part, from: place, to: next)
                    place = next
                }
                guard let most else {
                    let loop = try state()
                    jumps[place].append((loop, .none))
                    // A state of its own, so that nothing else leads back into the loop.
                    let back = try state()
                    try add(part, from: loop, to: back)
                    jumps[back].append((loop, .none))
                    jumps[loop].append((to, .none))
                    return
                }
                for _ in least..<max(least, most) {
                    let next = try state()
                    jumps[place].append((to, .none))
                    try add(part, from: place, to: next)
                    place = next
                }
                jumps[place].append((to, .none))
            }
        }

        private func closure(_ states: [Int], atStart: Bool, atEnd: Bool, _ budget: inout Int) throws(Failure)
            -> [Int]
        {
            var found = Set(states)
            var open = states
            while let state = open.popLast() {
                for (target, condition) in jumps[state] {
                    budget -= 1
                    guard budget > 0 else { throw Failure() }
                    let isOpen = condition == .none || condition == .start && atStart || condition == .end && atEnd
                    if isOpen, found.insert(target).inserted { open.append(target) }
                }
            }
            // Sorting and hashing the set.
            budget -= found.count
            return found.sorted()
        }

        func determinized(
            start: Int, end: Int, stateLimit: Int, budget: inout Int
        ) throws(Failure) -> (transitions: [[Transition]], accepts: [Bool]) {
            // Only the first state stands at the start of the text.
            var sets = [try closure([start], atStart: true, atEnd: false, &budget)]
            var numbers: [[Int]: Int32] = [:]
            var transitions: [[Transition]] = []
            var accepts: [Bool] = []
            while transitions.count < sets.count {
                let set = sets[transitions.count]
                let isFirst = transitions.isEmpty
                accepts.append(
                    try closure(set, atStart: isFirst, atEnd: true, &budget).contains(end))
                let moves = set.flatMap { edges[$0] }
                var cuts: Set<UInt32> = []
                for (ranges, _) in moves {
                    for range in ranges { cuts.formUnion([range.lowerBound, range.upperBound + 1]) }
                    budget -= ranges.count
                }
                guard budget > 0 else { throw Failure() }
                let points = cuts.sorted()
                var list: [Transition] = []
                for (low, next) in zip(points, points.dropFirst()) {
                    budget -= 2 * moves.count
                    guard budget > 0 else { throw Failure() }
                    let targets = Set(
                        moves.filter { RegularExpression.contains($0.ranges, low) }.map(\.target)
                    ).sorted()
                    guard !targets.isEmpty else { continue }
                    let reached = try closure(targets, atStart: false, atEnd: false, &budget)
                    let target: Int32
                    if let known = numbers[reached] {
                        target = known
                    } else {
                        guard sets.count < stateLimit else { throw Failure() }
                        target = Int32(sets.count)
                        numbers[reached] = target
                        sets.append(reached)
                    }
                    list.append(Transition(low: low, high: next - 1, target: target))
                }
                transitions.append(list)
            }
            return (transitions, accepts)
        }
    }
}
