/// A queue that serves clients in turn, and the adapters of each client in turn.
struct ClientQueue<Element> {
    private var queues: [String: FairQueue<Element>] = [:]
    /// Clients with elements, the next one first.
    private var order: [String] = []
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }
    /// The next element.
    var first: Element? { order.first.flatMap { queues[$0]?.first } }

    mutating func append(_ element: Element, client: String, key: String) {
        if queues[client] == nil { order.append(client) }
        queues[client, default: FairQueue()].append(element, key: key)
        count += 1
    }

    /// Removes the next element; its client goes to the end of the round.
    @discardableResult
    mutating func popFirst() -> Element? {
        guard let client = order.first, let element = queues[client]?.popFirst() else { return nil }
        order.removeFirst()
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
    /// The next element.
    var first: Element? { order.first.flatMap { queues[$0]?.first } }
    /// Number of elements of each key.
    var counts: [String: Int] { queues.mapValues(\.count) }

    mutating func append(_ element: Element, key: String) {
        if queues[key] == nil { order.append(key) }
        queues[key, default: []].append(element)
        count += 1
    }

    /// Removes the next element; its key goes to the end of the round.
    @discardableResult
    mutating func popFirst() -> Element? {
        guard let key = order.first, var queue = queues[key], !queue.isEmpty else { return nil }
        let element = queue.removeFirst()
        order.removeFirst()
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
