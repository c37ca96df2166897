import PEFTSupport

extension MethodConfiguration {
    /// A rank field from 1 to 65,536.
    static func rankField(_ path: WritableKeyPath<Self, Int> & Sendable, help: String) -> ConfigurationField<Self> {
        integerField("rank", key: "r", path, 1...65536, help: help)
    }

    /// An integer field with a range; a value outside it is an error.
    public static func integerField(
        _ name: String, key: String, _ path: WritableKeyPath<Self, Int> & Sendable, _ range: ClosedRange<Int>,
        help: String
    ) -> ConfigurationField<Self> {
        .init(name, key: key, .integer(range), help: help) {
            .integer($0[keyPath: path])
        } write: {
            let value = try integer($1)
            guard range.contains(value) else {
                throw PEFTError(
                    "\(value) is out of range", remedy: "use a value from \(range.lowerBound) to \(range.upperBound)")
            }
            $0[keyPath: path] = value
        }
    }

    /// A field for a number with a range; a value outside it is an error.
    public static func numberField(
        _ name: String, key: String, _ path: WritableKeyPath<Self, Double> & Sendable, _ range: ClosedRange<Double>,
        help: String
    ) -> ConfigurationField<Self> {
        .init(name, key: key, .number(range), help: help) {
            .wholeOr($0[keyPath: path])
        } write: {
            let value = try number($1)
            guard range.contains(value) else {
                throw PEFTError(
                    "\(value) is out of range", remedy: "use a value from \(range.lowerBound) to \(range.upperBound)")
            }
            $0[keyPath: path] = value
        }
    }

    /// A field that is true or false.
    public static func flagField(
        _ name: String, key: String, _ path: WritableKeyPath<Self, Bool> & Sendable, help: String
    ) -> ConfigurationField<Self> {
        .init(name, key: key, .flag, help: help) {
            .bool($0[keyPath: path])
        } write: {
            $0[keyPath: path] = try flag($1)
        }
    }
}
