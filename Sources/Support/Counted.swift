/// A number of things as people write it: `1 row`, `2,000 rows`.
/// - Parameter plural: the form for other numbers than 1; `noun` with an s by default.
public func counted(_ number: Int, _ noun: String, plural: String? = nil) -> String {
    let digits = String(number.magnitude)
    var grouped = ""
    for (index, digit) in digits.enumerated() {
        if index > 0, (digits.count - index).isMultiple(of: 3) { grouped.append(",") }
        grouped.append(digit)
    }
    return "\(number < 0 ? "-" : "")\(grouped) \(number == 1 ? noun : plural ?? noun + "s")"
}
