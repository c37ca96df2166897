/// Warnings about evaluation examples that are also in the training data.
enum SharedRows {
    /// - Parameter name: the split, such as `test`.
    static func warn(_ shared: Int, of all: Int, _ name: String) {
        guard shared > 0 else { return }
        Console.note(
            "warning: \(Console.grouped(shared)) of the \(Console.grouped(all)) \(name) examples \(shared == 1 ? "is" : "are") also in the training data; remove \(shared == 1 ? "it" : "them") from one of the two"
        )
    }
}
