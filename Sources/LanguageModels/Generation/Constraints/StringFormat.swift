/// The values of `format` that are supported, as patterns.
enum StringFormat {
    static let patterns: [String: String] = [
        "date": "^\(date)$", "time": "^\(time)$", "date-time": "^\(date)T\(time)$",
        "uuid": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        "email": "^\(word)([._+-]\(word))*@\(label)(\\.\(label))+$",
        "ipv4": "^\(byte)(\\.\(byte)){3}$",
    ]

    private static let word = "[A-Za-z0-9]+"
    private static let label = "[A-Za-z0-9]+(-[A-Za-z0-9]+)*"
    private static let byte = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    /// RFC 3339, with the days of each month and the leap years of the Gregorian calendar.
    private static let date =
        "((000[1-9]|00[1-9]\\d|0[1-9]\\d\\d|[1-9]\\d{3})-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])"
        + "|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))"
        + "|(\\d\\d(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)-02-29)"
    private static let time =
        "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
}
