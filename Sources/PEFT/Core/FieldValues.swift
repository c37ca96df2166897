import PEFTSupport

// Converters of configuration values from JSON to Swift, with uniform errors.

func integer(_ value: JSON) throws -> Int {
    guard let number = value.int else {
        throw PEFTError("\(value.text(indent: nil)) is not an integer", remedy: "use an integer")
    }
    return number
}

func number(_ value: JSON) throws -> Double {
    guard let number = value.double else {
        throw PEFTError("\(value.text(indent: nil)) is not a number", remedy: "use a number")
    }
    return number
}

func flag(_ value: JSON) throws -> Bool {
    guard let flag = value.bool else {
        throw PEFTError("\(value.text(indent: nil)) is not a boolean", remedy: "use true or false")
    }
    return flag
}

func text(_ value: JSON) throws -> String {
    guard let text = value.string else {
        throw PEFTError("\(value.text(indent: nil)) is not a string", remedy: "use a string")
    }
    return text
}

func names(_ value: JSON) throws -> [String] {
    guard let list = value.array, case let names = list.compactMap(\.string), names.count == list.count else {
        throw PEFTError("\(value.text(indent: nil)) is not a list of names", remedy: "use a list of strings")
    }
    return names
}

func integers(_ value: JSON) throws -> [Int] {
    guard let list = value.array, case let numbers = list.compactMap(\.int), numbers.count == list.count else {
        throw PEFTError("\(value.text(indent: nil)) is not a list of integers", remedy: "use a list of integers")
    }
    return numbers
}

func patterns(_ value: JSON) throws -> [String: Double] {
    guard let object = value.object, case let numbers = object.compactMapValues(\.double),
        numbers.count == object.count
    else {
        throw PEFTError(
            "\(value.text(indent: nil)) doesn't map patterns to numbers", remedy: "use an object of numbers")
    }
    return numbers
}

extension JSON {
    /// An integer if the value is integral, as Python writes `16` rather than `16.0`.
    static func wholeOr(_ value: Double) -> JSON { Int(exactly: value).map(JSON.integer) ?? .number(value) }
}
