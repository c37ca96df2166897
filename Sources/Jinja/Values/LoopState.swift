/// What `loop` tells inside a loop.
package final class LoopState {
    let items: [JinjaValue]
    var index = 0
    /// What `loop.changed` was last asked about.
    private var last: [JinjaValue]?

    init(_ items: [JinjaValue]) { self.items = items }

    func attribute(_ name: String) -> JinjaValue {
        switch name {
        case "index": return .integer(index + 1)
        case "index0": return .integer(index)
        case "revindex": return .integer(items.count - index)
        case "revindex0": return .integer(items.count - index - 1)
        case "first": return .boolean(index == 0)
        case "last": return .boolean(index == items.count - 1)
        case "length": return .integer(items.count)
        case "depth": return .integer(1)
        case "depth0": return .integer(0)
        case "previtem": return index > 0 ? items[index - 1] : .undefined("there is no previous item")
        case "nextitem": return index + 1 < items.count ? items[index + 1] : .undefined("there is no next item")
        case "cycle":
            return .function(
                Function(name: "cycle") { [index] _, arguments in
                    guard !arguments.positional.isEmpty else { throw JinjaFailure("no items for cycling given") }
                    return arguments.positional[index % arguments.positional.count]
                })
        case "changed":
            return .function(
                Function(name: "changed") { _, arguments in
                    defer { self.last = arguments.positional }
                    return .boolean(
                        self.last.map { !JinjaValue.list($0).isEqual(to: .list(arguments.positional)) } ?? true)
                })
        default: return .undefined("'loop' has no attribute '\(name)'")
        }
    }
}
