/// A grammar of JSON texts: kinds of values, and the alternatives of each place where a value may stand.
///
/// It is smaller than JSON in four ways, so that every text that it generates ends and is readable by every parser:
/// values nest at most ``deepest`` deep, whitespace between tokens is bounded (``longestSpace``), numbers have at most
/// 18 digits and exponents at most two, and members of objects that a schema declares come in its order.
struct Grammar: Sendable {
    /// The number of arrays and objects that may be open at once.
    static let deepest = 64
    /// The number of spaces and tabs after a line break.
    static let longestSpace = 40

    typealias NodeID = Int
    /// An index into ``values``.
    typealias ValueID = Int

    enum Node: Sendable {
        /// One of several JSON texts of scalars.
        case literals(ByteStrings)
        case number
        case range(NumberRange)
        case string(StringRule)
        case object(ObjectRule)
        case array(ArrayRule)
    }

    var nodes: [Node] = []
    /// The nodes that may stand at a place.
    var values: [[NodeID]] = []
    /// The least number of nested arrays and objects of each node and value; ``impossible`` if there is no finite text.
    var nodeHeights: [Int] = []
    var valueHeights: [Int] = []
    var root: ValueID = 0

    static let impossible = Int.max / 4

    struct ObjectRule: Sendable {
        struct Property: Sendable {
            var value: ValueID
            var isRequired: Bool
        }

        /// In the order in which they are generated.
        var properties: [Property] = []
        /// The JSON text of each name with its closing quote; the index is that of `properties`.
        var names = ByteStrings()
        /// Names of properties that other members may not have, although they are not generated.
        var additional: ValueID?
        /// For each index, the first required property from there on, or the number of properties.
        var nextRequired: [Int] = [0]
        /// The properties below each node of `names`, ascending.
        var candidates: [[Int32]] = [[]]
    }

    struct ArrayRule: Sendable {
        var prefix: [ValueID] = []
        /// The value of further elements, if any may follow.
        var items: ValueID?
        var least = 0
        var most: Int?

        func value(at index: Int) -> ValueID? {
            if let most, index >= most { return nil }
            return index < prefix.count ? prefix[index] : items
        }

        /// Counts above this one are alike.
        var distinct: Int { max(least, prefix.count, most ?? 0) }
    }

    struct StringRule: Sendable {
        /// The strings' characters; `nil` allows all.
        var automaton: ScalarAutomaton?
        /// Length in Unicode scalars.
        var least = 0
        var most: Int?
    }
}

/// A set of byte strings as a trie.
struct ByteStrings: Sendable {
    private(set) var children: [[(byte: UInt8, node: Int32)]] = [[]]
    /// The index of the string that ends at each node, or -1.
    private(set) var ends: [Int32] = [-1]

    var isEmpty: Bool { children.count == 1 }

    /// - Returns: whether the string is new.
    @discardableResult
    mutating func insert(_ string: some Sequence<UInt8>, index: Int) -> Bool {
        var node: Int32 = 0
        for byte in string {
            if let next = child(node, byte) {
                node = next
                continue
            }
            let created = Int32(children.count)
            children.append([])
            ends.append(-1)
            // Sorted, for a binary search.
            let place = lowerBound(node, byte)
            children[Int(node)].insert((byte, created), at: place)
            node = created
        }
        guard ends[Int(node)] < 0 else { return false }
        ends[Int(node)] = Int32(index)
        return true
    }

    private func lowerBound(_ node: Int32, _ byte: UInt8) -> Int {
        let list = children[Int(node)]
        var (low, high) = (0, list.count)
        while low < high {
            let middle = (low + high) / 2
            if list[middle].byte < byte { low = middle + 1 } else { high = middle }
        }
        return low
    }

    func child(_ node: Int32, _ byte: UInt8) -> Int32? {
        let place = lowerBound(node, byte)
        let list = children[Int(node)]
        return place < list.count && list[place].byte == byte ? list[place].node : nil
    }
}

/// Decimal numbers without exponent from `low` to `high`, both in units of the last fraction digit.
struct NumberRange: Sendable {
    let low: Int
    let high: Int
    /// The number of fraction digits: 0 for integers.
    let digits: Int

    static let largest = 999_999_999_999_999_999

    /// A prefix of a number.
    struct Prefix: Hashable {
        var isNegative: Bool
        /// The digits so far, as an integer; -1 before the first.
        var value: Int
        /// Fraction digits so far; -1 before the point.
        var fraction: Int
        /// Whether a digit must follow.
        var needsDigit: Bool { value < 0 || fraction == 0 }
    }

    static func power(_ exponent: Int) -> Int { (0..<exponent).reduce(1) { result, _ in result * 10 } }

    /// Whether a number with this prefix is in the range.
    func isPossible(_ prefix: Prefix) -> Bool {
        if prefix.value < 0 {
            return prefix.isNegative ? low < 0 : true
        }
        if prefix.fraction >= 0 {
            // Digits that follow add less than one unit of the last one.
            let scale = Self.power(digits - prefix.fraction)
            return meets(prefix.value * scale, prefix.value * scale + scale - 1, prefix.isNegative)
        }
        // k further integer digits.
        let unit = Self.power(digits)
        var (least, most) = (prefix.value, prefix.value)
        while least <= Self.largest / unit {
            let top = most > Self.largest / unit ? Self.largest : min(Self.largest, most * unit + unit - 1)
            if meets(least * unit, top, prefix.isNegative) { return true }
            // No digit follows a leading zero.
            if prefix.value == 0 { return false }
            guard least <= Self.largest / 10 else { return false }
            (least, most) = (least * 10, most > Self.largest / 10 ? Self.largest : most * 10 + 9)
        }
        return false
    }

    private func meets(_ least: Int, _ most: Int, _ isNegative: Bool) -> Bool {
        isNegative ? -most <= high && -least >= low : least <= high && most >= low
    }

    func isComplete(_ prefix: Prefix) -> Bool {
        guard !prefix.needsDigit else { return false }
        let value = prefix.value * Self.power(digits - max(0, prefix.fraction))
        return meets(value, value, prefix.isNegative)
    }

    func next(_ prefix: Prefix, _ byte: UInt8) -> Prefix? {
        var next = prefix
        switch byte {
        case UInt8(ascii: "."):
            guard prefix.value >= 0, prefix.fraction < 0, digits > 0 else { return nil }
            next.fraction = 0
        case 0x30...0x39:
            guard prefix.fraction < digits else { return nil }
            // No digit follows a leading zero.
            if prefix.value == 0, prefix.fraction < 0 { return nil }
            let (product, overflows) = max(0, prefix.value).multipliedReportingOverflow(by: 10)
            guard !overflows, product <= Self.largest else { return nil }
            next.value = product + Int(byte - 0x30)
            if prefix.fraction >= 0 { next.fraction += 1 }
        default: return nil
        }
        return isPossible(next) ? next : nil
    }

    /// The prefix of one byte.
    func first(_ byte: UInt8) -> Prefix? {
        guard byte == UInt8(ascii: "-") else {
            return byte == UInt8(ascii: ".") ? nil : next(Prefix(isNegative: false, value: -1, fraction: -1), byte)
        }
        let prefix = Prefix(isNegative: true, value: -1, fraction: -1)
        return low < 0 ? prefix : nil
    }
}
