import Foundation
import PEFTSupport

/// A call of a tool in the text that a model generated.
package struct ToolCall: Sendable, Equatable {
    package var name: String
    /// The arguments' JSON text, as the model wrote it.
    package var arguments: String
    /// The model's own id of the call, if it writes one.
    package var id: String?

    package init(name: String, arguments: String, id: String? = nil) {
        (self.name, self.arguments, self.id) = (name, arguments, id)
    }
}

/// Finds calls of tools in generated text while it grows.
///
/// Text that may become a call is held back, and returned as text if it doesn't become one: the events together hold
/// everything but the calls, their markers, and whitespace and semicolons between calls. Some markers are special tokens,
/// so the text must be decoded with them.
package struct ToolCallParser: Sendable {
    package enum Format: Sendable, CaseIterable {
        /// `<tool_call>{"name": …, "arguments": …}</tool_call>` (Hermes 2, Qwen 2.5 and 3).
        case hermes
        /// `{"name": …, "parameters": …}`, also after `<|python_tag|>`, as the whole text; several are separated by
        /// semicolons (Llama 3.1 to 3.3).
        case llama3
        /// `[TOOL_CALLS]`, then a list of `{"name": …, "arguments": …}`, or a name and its arguments, also with `[ARGS]`
        /// between them (Mistral).
        case mistral

        /// The format that a chat template asks for, if it is one of these.
        package init?(chatTemplate: String) {
            if chatTemplate.contains("[TOOL_CALLS]") {
                self = .mistral
            } else if chatTemplate.contains("<tool_call>") {
                self = .hermes
            } else if chatTemplate.contains("<|python_tag|>") {
                self = .llama3
            } else {
                return nil
            }
        }

        /// What a call begins with.
        fileprivate var marker: [UInt8] {
            switch self {
            case .hermes: Array("<tool_call>".utf8)
            case .llama3: Array("<|python_tag|>".utf8)
            case .mistral: Array("[TOOL_CALLS]".utf8)
            }
        }
    }

    package enum Event: Sendable, Equatable {
        case text(String)
        case call(ToolCall)
    }

    private enum Place { case start, text, call, afterCall }

    private let format: Format
    /// What isn't decided.
    private var pending: [UInt8] = []
    private var place: Place
    /// Further calls of a list, the next one last.
    private var queue: [ToolCall] = []

    package init(_ format: Format) {
        self.format = format
        // Only at the start of a text are Llama's calls without a marker.
        place = format == .llama3 ? .start : .text
    }

    /// Reads more text.
    package mutating func append(_ text: String) -> [Event] {
        pending += text.utf8
        return advance(isLast: false)
    }

    /// The rest, after the last text.
    package mutating func finish() -> [Event] { advance(isLast: true) }

    // MARK: -

    private mutating func advance(isLast: Bool) -> [Event] {
        var events: [Event] = []
        while let event = step(isLast: isLast) {
            guard case .text(let text) = event else {
                events.append(event)
                continue
            }
            if text.isEmpty { continue }
            if case .text(let before) = events.last {
                events[events.count - 1] = .text(before + text)
            } else {
                events.append(event)
            }
        }
        return events
    }

    /// The next event; an empty text if only the place changes; `nil` if more text is needed.
    private mutating func step(isLast: Bool) -> Event? {
        if let call = queue.popLast() { return .call(call) }
        switch place {
        case .start, .afterCall:
            // Llama separates calls by semicolons.
            let separates = format == .llama3 && place == .afterCall
            let space = pending.prefix { $0 == 0x20 || (0x09...0x0D).contains($0) || separates && $0 == 0x3B }
            let rest = pending.dropFirst(space.count)
            guard let first = rest.first else {
                guard isLast, !pending.isEmpty else { return nil }
                return place == .start ? take(pending.count) : drop(pending.count)
            }
            if rest.starts(with: format.marker) || format == .llama3 && first == UInt8(ascii: "{") {
                drop(space.count)
                if rest.starts(with: format.marker) { drop(format.marker.count) }
                place = .call
                return .text("")
            }
            if !isLast, format.marker.starts(with: rest) { return nil }
            // Whitespace before text is text.
            place = .text
            return .text("")
        case .text:
            guard format != .llama3 else { return pending.isEmpty ? nil : take(pending.count) }
            if let start = pending.firstRange(of: format.marker)?.lowerBound {
                let text = take(start)
                drop(format.marker.count)
                place = .call
                return text
            }
            var count = pending.count
            if !isLast {
                // The end may be the beginning of a marker.
                let most = min(pending.count, format.marker.count - 1)
                let held = (0...most).last { format.marker.starts(with: pending.suffix($0)) } ?? 0
                count -= held
            }
            return count == 0 ? nil : take(count)
        case .call: return call(isLast: isLast)
        }
    }

    @discardableResult
    private mutating func drop(_ count: Int) -> Event {
        pending.removeFirst(count)
        return .text("")
    }

    private mutating func take(_ count: Int) -> Event {
        defer { pending.removeFirst(count) }
        return .text(String(decoding: pending[..<count], as: UTF8.self))
    }

    /// Text that looked like a call.
    private mutating func giveUp(_ text: String) -> Event {
        place = .text
        return .text(text)
    }

    private mutating func call(isLast: Bool) -> Event? {
        switch format {
        case .hermes: hermesCall(isLast: isLast)
        case .llama3: llamaCall(isLast: isLast)
        case .mistral: mistralCall(isLast: isLast)
        }
    }

    private mutating func hermesCall(isLast: Bool) -> Event? {
        let (open, close) = ("<tool_call>", "</tool_call>")
        let end = Self.end(of: Array(close.utf8), in: pending)
        guard let end = end ?? (isLast ? pending.count : nil) else { return nil }
        let content = Array(pending[..<end])
        let isClosed = end < pending.count
        drop(min(pending.count, end + (isClosed ? close.utf8.count : 0)))
        if let call = Self.call(content) {
            place = .afterCall
            return .call(call)
        }
        return giveUp(open + String(decoding: content, as: UTF8.self) + (isClosed ? close : ""))
    }

    private mutating func llamaCall(isLast: Bool) -> Event? {
        let space = pending.prefix { $0 == 0x20 || (0x09...0x0D).contains($0) }.count
        if pending.count > space, pending[space] == UInt8(ascii: "{") {
            guard let end = Self.valueEnd(pending, from: space) else {
                guard isLast else { return nil }
                return giveUp(text: pending.count)
            }
            if let call = Self.call(Array(pending[space..<end])) {
                drop(end)
                place = .afterCall
                return .call(call)
            }
        } else if pending.count == space, !isLast {
            return nil
        }
        // Such as a program for a code interpreter.
        return giveUp(text: pending.count)
    }

    private mutating func giveUp(text count: Int) -> Event {
        place = .text
        return take(count)
    }

    private mutating func mistralCall(isLast: Bool) -> Event? {
        let marker = "[TOOL_CALLS]"
        let space = pending.prefix { $0 == 0x20 || (0x09...0x0D).contains($0) }.count
        guard pending.count > space else {
            guard isLast else { return nil }
            defer { drop(pending.count) }
            return giveUp(marker + String(decoding: pending, as: UTF8.self))
        }
        let isList = pending[space] == UInt8(ascii: "[")
        let start = isList ? space : pending.firstIndex(of: UInt8(ascii: "{"))
        guard let start, let end = Self.valueEnd(pending, from: start) else {
            guard isLast else { return nil }
            defer { drop(pending.count) }
            return giveUp(marker + String(decoding: pending, as: UTF8.self))
        }
        let content = Array(pending[..<end])
        drop(end)
        var calls: [ToolCall]?
        if isList {
            calls = Self.calls(Array(content[start...]))
        } else {
            var name = String(decoding: content[..<start], as: UTF8.self).trimmingCharacters(
                in: .whitespacesAndNewlines)
            if name.hasSuffix("[ARGS]") { name = String(name.dropLast("[ARGS]".count)) }
            let arguments = Array(content[start...])
            let isCall = !name.isEmpty && (try? JSON.parse(Data(arguments), name: "arguments")) != nil
            calls = isCall ? [ToolCall(name: name, arguments: String(decoding: arguments, as: UTF8.self))] : nil
        }
        guard let calls, let first = calls.first else {
            return giveUp(marker + String(decoding: content, as: UTF8.self))
        }
        place = .afterCall
        queue = calls.dropFirst().reversed()
        return .call(first)
    }

    // MARK: JSON

    /// The end of the object or array that begins at an index; `nil` if it isn't complete.
    private static func valueEnd(_ bytes: [UInt8], from start: Int) -> Int? {
        var depth = 0
        var isText = false
        var index = start
        while index < bytes.count {
            switch bytes[index] {
            case UInt8(ascii: "\\") where isText: index += 1
            case UInt8(ascii: "\""): isText.toggle()
            case UInt8(ascii: "{") where !isText, UInt8(ascii: "[") where !isText: depth += 1
            case UInt8(ascii: "}") where !isText, UInt8(ascii: "]") where !isText:
                depth -= 1
                if depth <= 0 { return index + 1 }
            default: break
            }
            index += 1
        }
        return nil
    }

    /// The place of a mark outside of JSON strings.
    private static func end(of mark: [UInt8], in bytes: [UInt8]) -> Int? {
        var isText = false
        var index = 0
        while index < bytes.count {
            switch bytes[index] {
            case UInt8(ascii: "\\") where isText: index += 1
            case UInt8(ascii: "\""): isText.toggle()
            case mark[0] where !isText: if bytes[index...].starts(with: mark) { return index }
            default: break
            }
            index += 1
        }
        return nil
    }

    /// An object with a name and arguments.
    private static func call(_ text: [UInt8]) -> ToolCall? {
        guard let json = try? JSON.parse(Data(text), name: "a call"), json.object != nil,
            let name = json["name"]?.string,
            !name.isEmpty
        else { return nil }
        // The arguments as they are written, as the order of fields has a meaning for some readers.
        var scanner = JSONScanner(text)
        var arguments: String?
        try? scanner.members { scanner in
            let isWanted = ["arguments", "parameters"].contains(String(decoding: scanner.text, as: UTF8.self))
            let start = scanner.index
            try scanner.skipValue()
            guard isWanted, arguments == nil else { return }
            arguments = String(decoding: text[start..<scanner.index], as: UTF8.self)
                .trimmingCharacters(in: .whitespacesAndNewlines)
        }
        // Some models write the JSON text of arguments as a string.
        if let inner = (json["arguments"] ?? json["parameters"])?.string { arguments = inner }
        return arguments.map { ToolCall(name: name, arguments: $0, id: json["id"]?.string) }
    }

    private static func calls(_ text: [UInt8]) -> [ToolCall]? {
        var calls: [ToolCall] = []
        var isValid = (try? JSON.parse(Data(text), name: "calls")) != nil
        guard isValid else { return nil }
        var scanner = JSONScanner(text)
        try? scanner.elements { scanner in
            let start = scanner.index
            try scanner.skipValue()
            guard let call = call(Array(text[start..<scanner.index])) else {
                isValid = false
                return
            }
            calls.append(call)
        }
        return isValid && !calls.isEmpty ? calls : nil
    }
}
