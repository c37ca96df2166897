/// A deterministic automaton over Unicode scalars. From each of its states an accepting one can be reached.
struct ScalarAutomaton: Sendable {
    struct Transition: Sendable, Hashable {
        let low: UInt32
        let high: UInt32
        let target: Int32
    }

    /// Disjoint and ascending, for each state; the first state is the initial one. Neighbors of one target are merged.
    let transitions: [[Transition]]
    let accepts: [Bool]

    /// The number of the first transition that ends at or above `scalar`.
    private func first(_ state: Int, _ scalar: UInt32) -> Int {
        let list = transitions[state]
        var (low, high) = (0, list.count)
        while low < high {
            let middle = (low + high) / 2
            if list[middle].high < scalar { low = middle + 1 } else { high = middle }
        }
        return low
    }

    func next(_ state: Int, _ scalar: UInt32) -> Int? {
        let index = first(state, scalar)
        let list = transitions[state]
        guard index < list.count, list[index].low <= scalar else { return nil }
        return Int(list[index].target)
    }

    /// Whether some scalar in the range may follow.
    func meets(_ state: Int, _ range: ClosedRange<UInt32>) -> Bool {
        let index = first(state, range.lowerBound)
        let list = transitions[state]
        return index < list.count && list[index].low <= range.upperBound
    }

    /// The state after every scalar in the range, if it is one and the same.
    func uniform(_ state: Int, _ range: ClosedRange<UInt32>) -> Int? {
        let index = first(state, range.lowerBound)
        let list = transitions[state]
        guard index < list.count, list[index].low <= range.lowerBound, list[index].high >= range.upperBound
        else { return nil }
        return Int(list[index].target)
    }

    /// The strings of this automaton with a length from `least` to `most`; `nil` if there is none.
    ///
    /// - Parameter budget: how many steps it may take, of which those that it takes are subtracted.
    /// - Throws: ``Failure`` if it has more than `limit` states or takes too many steps.
    func limited(least: Int, most: Int?, limit: Int, budget: inout Int) throws(Failure) -> ScalarAutomaton? {
        let cap = most ?? least
        guard least > 0 || most != nil else { return self }
        var numbers: [Pair: Int32] = [:]
        var pairs: [Pair] = []
        func number(_ pair: Pair) throws(Failure) -> Int32 {
            if let known = numbers[pair] { return known }
            guard pairs.count < limit else { throw Failure() }
            numbers[pair] = Int32(pairs.count)
            pairs.append(pair)
            return Int32(pairs.count - 1)
        }
        _ = try number(Pair(state: 0, count: 0))
        var all: [[Transition]] = []
        var accepting: [Bool] = []
        while all.count < pairs.count {
            let pair = pairs[all.count]
            var list: [Transition] = []
            if most == nil || pair.count < cap {
                // Looking up and adding each.
                budget -= 4 * transitions[pair.state].count
                guard budget > 0 else { throw Failure() }
                for edge in transitions[pair.state] {
                    let target = try number(Pair(state: Int(edge.target), count: min(cap, pair.count + 1)))
                    list.append(Transition(low: edge.low, high: edge.high, target: target))
                }
            }
            all.append(list)
            accepting.append(accepts[pair.state] && pair.count >= least)
        }
        return ScalarAutomaton(trimming: all, accepts: accepting)
    }

    struct Failure: Error {}

    private struct Pair: Hashable {
        let state: Int
        let count: Int
    }

    /// Without the states from which no accepting one can be reached; `nil` if the initial one is such a state.
    init?(trimming all: [[Transition]], accepts: [Bool]) {
        var sources = [[Int32]](repeating: [], count: all.count)
        for (state, list) in all.enumerated() { for edge in list { sources[Int(edge.target)].append(Int32(state)) } }
        var isLive = accepts
        var open = accepts.indices.filter { accepts[$0] }
        while let state = open.popLast() {
            for source in sources[state] where !isLive[Int(source)] {
                isLive[Int(source)] = true
                open.append(Int(source))
            }
        }
        guard isLive.first == true else { return nil }
        var numbers = [Int32](repeating: -1, count: all.count)
        var kept: [Int] = []
        for state in all.indices where isLive[state] {
            numbers[state] = Int32(kept.count)
            kept.append(state)
        }
        self.accepts = kept.map { accepts[$0] }
        transitions = kept.map { state in
            var list: [Transition] = []
            for edge in all[state] where numbers[Int(edge.target)] >= 0 {
                let target = numbers[Int(edge.target)]
                if let last = list.last, last.target == target, last.high &+ 1 == edge.low {
                    list[list.count - 1] = Transition(low: last.low, high: edge.high, target: target)
                } else {
                    list.append(Transition(low: edge.low, high: edge.high, target: target))
                }
            }
            return list
        }
    }
}
