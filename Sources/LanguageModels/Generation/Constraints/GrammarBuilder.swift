import PEFTSupport

/// A ``Grammar`` under construction: values whose alternatives may be all those of other values, until
/// ``finished()`` makes them flat.
struct GrammarBuilder {
    /// Place in the grammar: a node, or all alternatives of another value.
    enum Alternative {
        case node(Grammar.NodeID)
        case value(Grammar.ValueID)
    }

    private var grammar = Grammar()
    private var alternatives: [[Alternative]] = []
    /// The texts of nodes of literals.
    private var texts: [Grammar.NodeID: [[UInt8]]] = [:]
    private var anything: Grammar.ValueID?

    private static let mostNodes = 20_000
    private static let mostAlternatives = 128
    private static let mostAmbiguous = 1_000

    // MARK: Nodes

    mutating func node(_ node: Grammar.Node) throws -> Alternative {
        guard grammar.nodes.count < Self.mostNodes else {
            throw PEFTError("the schema has more than \(Self.mostNodes) values", remedy: "use a smaller schema")
        }
        grammar.nodes.append(node)
        return .node(grammar.nodes.count - 1)
    }

    mutating func literals(_ list: [[UInt8]]) throws -> Alternative {
        var strings = ByteStrings()
        for (index, text) in list.enumerated() { strings.insert(text, index: index) }
        let result = try node(.literals(strings))
        if case .node(let id) = result { texts[id] = list }
        return result
    }

    mutating func value(_ list: [Alternative]) -> Grammar.ValueID {
        alternatives.append(list)
        return alternatives.count - 1
    }

    /// Gives a value its alternatives later, so that they can refer to it.
    mutating func define(_ value: Grammar.ValueID, as list: [Alternative]) { alternatives[value] = list }

    mutating func anyValue() throws -> Grammar.ValueID {
        if let anything { return anything }
        let id = value([])
        anything = id
        var array = Grammar.ArrayRule()
        array.items = id
        alternatives[id] = [
            try object([], additional: id), try node(.array(array)), try node(.string(Grammar.StringRule())),
            try node(.number), try literals(["true", "false", "null"].map { Array($0.utf8) }),
        ]
        return id
    }

    mutating func object(
        _ properties: [(name: String, value: Grammar.ValueID, isRequired: Bool)], additional: Grammar.ValueID?
    ) throws -> Alternative {
        var rule = Grammar.ObjectRule()
        rule.additional = additional
        for (index, property) in properties.enumerated() {
            rule.properties.append(.init(value: property.value, isRequired: property.isRequired))
            rule.names.insert(Self.quoted(property.name).dropFirst(), index: index)
        }
        return try node(.object(rule))
    }

    static func quoted(_ text: String) -> [UInt8] {
        var quoted = ""
        JSON.quote(text, into: &quoted)
        return Array(quoted.utf8)
    }

    // MARK: The whole

    /// The grammar with flat alternatives, without what has no finite text.
    mutating func finished(root: Grammar.ValueID) throws -> Grammar {
        grammar.root = root
        try flatten()
        measure()
        for index in grammar.nodes.indices { prune(index) }
        let heights = grammar.nodeHeights
        grammar.values = grammar.values.map { $0.filter { heights[$0] <= Grammar.deepest } }
        guard grammar.valueHeights[grammar.root] <= Grammar.deepest else {
            throw PEFTError(
                "no JSON text of at most \(Grammar.deepest) nested values satisfies the schema",
                remedy:
                    "check for required properties that refer to the schema itself, and for bounds that exclude each other"
            )
        }
        try checkAmbiguity()
        return grammar
    }

    /// Arrays and objects that begin like another one of the same place, all of which an automaton may have to read at
    /// once.
    private func checkAmbiguity() throws {
        var nodes: Set<Grammar.NodeID> = []
        for list in grammar.values {
            let arrays = list.filter { if case .array = grammar.nodes[$0] { true } else { false } }
            let objects = list.filter { if case .object = grammar.nodes[$0] { true } else { false } }
            for alike in [arrays, objects] where alike.count > 1 { nodes.formUnion(alike) }
        }
        guard nodes.count <= Self.mostAmbiguous else {
            throw PEFTError(
                "more than \(Self.mostAmbiguous) arrays and objects of the schema are alternatives of another one",
                remedy: "use fewer schemas in 'anyOf'")
        }
    }

    private mutating func flatten() throws {
        var budget = 2_000_000
        var merged: [[Grammar.NodeID]: Grammar.NodeID] = [:]
        for start in alternatives.indices {
            var found: [Grammar.NodeID] = []
            var seenNodes: Set<Grammar.NodeID> = []
            var seen: Set<Grammar.ValueID> = [start]
            var open = [start]
            while let id = open.popLast() {
                for alternative in alternatives[id].reversed() {
                    budget -= 1
                    switch alternative {
                    case .node(let node): if seenNodes.insert(node).inserted { found.append(node) }
                    case .value(let other): if seen.insert(other).inserted { open.append(other) }
                    }
                }
            }
            // One node of all literals.
            let constants = found.filter { texts[$0] != nil }.sorted()
            if constants.count > 1 {
                found.removeAll { texts[$0] != nil }
                if merged[constants] == nil {
                    let all = constants.flatMap { texts[$0] ?? [] }
                    budget -= all.reduce(0) { $0 + $1.count }
                    if budget > 0, case .node(let id) = try literals(all) { merged[constants] = id }
                }
                if let id = merged[constants] { found.append(id) }
            }
            guard budget > 0, found.count <= Self.mostAlternatives else {
                throw PEFTError(
                    "the schema has too many alternatives in one place",
                    remedy: "use at most \(Self.mostAlternatives) in an 'anyOf'")
            }
            grammar.values.append(found.sorted())
        }
    }

    /// The least nesting of each node, from the innermost outward.
    private mutating func measure() {
        var nodes = [Int](repeating: Grammar.impossible, count: grammar.nodes.count)
        var values = [Int](repeating: Grammar.impossible, count: grammar.values.count)
        for _ in 0...(Grammar.deepest + 1) {
            for (index, list) in grammar.values.enumerated() {
                values[index] = list.map { nodes[$0] }.min() ?? Grammar.impossible
            }
            for (index, node) in grammar.nodes.enumerated() {
                switch node {
                case .literals, .number, .range, .string: nodes[index] = 0
                case .object(let rule):
                    let inner = rule.properties.filter(\.isRequired).map { values[$0.value] }.max() ?? 0
                    nodes[index] = min(Grammar.impossible, inner + 1)
                case .array(let rule):
                    var inner = rule.prefix.prefix(rule.least).map { values[$0] }.max() ?? 0
                    if rule.least > rule.prefix.count {
                        inner = max(inner, rule.items.map { values[$0] } ?? Grammar.impossible)
                    }
                    if let most = rule.most, most < rule.least { inner = Grammar.impossible }
                    nodes[index] = min(Grammar.impossible, inner + 1)
                }
            }
        }
        for (index, list) in grammar.values.enumerated() {
            values[index] = list.map { nodes[$0] }.min() ?? Grammar.impossible
        }
        (grammar.nodeHeights, grammar.valueHeights) = (nodes, values)
    }

    /// Removes parts without finite texts, and prepares the tables of objects.
    private mutating func prune(_ index: Int) {
        let heights = grammar.valueHeights
        switch grammar.nodes[index] {
        case .array(var rule):
            if let items = rule.items, heights[items] > Grammar.deepest { rule.items = nil }
            if let place = rule.prefix.firstIndex(where: { heights[$0] > Grammar.deepest }) {
                rule.most = min(rule.most ?? .max, place)
            }
            if rule.items == nil { rule.most = min(rule.most ?? .max, rule.prefix.count) }
            grammar.nodes[index] = .array(rule)
        case .object(var rule):
            if let value = rule.additional, heights[value] > Grammar.deepest { rule.additional = nil }
            let count = rule.properties.count
            rule.nextRequired = [Int](repeating: count, count: count + 1)
            for place in rule.properties.indices.reversed() {
                rule.nextRequired[place] =
                    rule.properties[place].isRequired ? place : rule.nextRequired[place + 1]
            }
            rule.candidates = rule.names.descendants
            grammar.nodes[index] = .object(rule)
        default: break
        }
    }
}

extension ByteStrings {
    /// The indices of the strings at and below each node, ascending.
    fileprivate var descendants: [[Int32]] {
        var result = [[Int32]](repeating: [], count: children.count)
        // A child has a larger number than its parent.
        for node in children.indices.reversed() {
            var all = children[node].flatMap { result[Int($0.node)] }
            if ends[node] >= 0 { all.append(ends[node]) }
            result[node] = all.sorted()
        }
        return result
    }
}
