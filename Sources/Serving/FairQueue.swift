/// A queue that serves clients in turn, and the adapters of each client in turn.
struct ClientQueue<Element> {
    private var queues: [String: FairQueue<Element>] = [:]
    /// Clients with elements, the next one first.
    private var order: [String] = []
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }
    /// The keys that have elements.
    var keys: Set<String> { queues.values.reduce(into: []) { $0.formUnion($1.keys) } }

    /// The next element of other keys than these, with its client and key.
    func next(skipping keys: Set<String> = []) -> (element: Element, client: String, key: String)? {
        for client in order {
            if let (element, key) = queues[client]?.next(skipping: keys) { return (element, client, key) }
        }
        return nil
    }

    mutating func append(_ element: Element, client: String, key: String) {
        if queues[client] == nil { order.append(client) }
        queues[client, default: FairQueue()].append(element, key: key)
        count += 1
    }

    /// Removes the first element of a client's key, which go to the end of their rounds.
    @discardableResult
    mutating func pop(client: String, key: String) -> Element? {
        guard let element = queues[client]?.pop(key: key) else { return nil }
        order.removeAll { $0 == client }
        if queues[client]?.isEmpty ?? true { queues[client] = nil } else { order.append(client) }
        count -= 1
        return element
    }

    /// Removes and returns the elements that satisfy the condition.
    mutating func remove(where condition: (Element) -> Bool) -> [Element] {
        var removed: [Element] = []
        for client in order {
            removed += queues[client]?.remove(where: condition) ?? []
            if queues[client]?.isEmpty ?? true { queues[client] = nil }
        }
        order.removeAll { queues[$0] == nil }
        count -= removed.count
        return removed
    }
}

/// A queue that serves its keys in turn: one element of each key that has any, then the next round.
struct FairQueue<Element> {
    private var queues: [String: [Element]] = [:]
    /// Keys with elements, the next one first.
    private var order: [String] = []
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }
    /// The keys that have elements.
    var keys: [String] { order }

    /// The next element of other keys than these, with its key.
    func next(skipping keys: Set<String> = []) -> (element: Element, key: String)? {
        guard let key = order.first(where: { !keys.contains($0) }) else { return nil }
        return queues[key]?.first.map { ($0, key) }
    }

    mutating func append(_ element: Element, key: String) {
        if queues[key] == nil { order.append(key) }
        queues[key, default: []].append(element)
        count += 1
    }

    /// Removes the first element of a key, which goes to the end of the round.
    @discardableResult
    mutating func pop(key: String) -> Element? {
        guard var queue = queues[key], !queue.isEmpty else { return nil }
        let element = queue.removeFirst()
        order.removeAll { $0 == key }
        queues[key] = queue.isEmpty ? nil : queue
        if !queue.isEmpty { order.append(key) }
        count -= 1
        return element
    }

    /// Removes and returns the elements that satisfy the condition.
    mutating func remove(where condition: (Element) -> Bool) -> [Element] {
        var removed: [Element] = []
        for (key, queue) in queues {
            let kept = queue.filter { !condition($0) }
            guard kept.count < queue.count else { continue }
            removed += queue.filter(condition)
            queues[key] = kept.isEmpty ? nil : kept
            if kept.isEmpty { order.removeAll { $0 == key } }
        }
        count -= removed.count
        return removed
    }
}
