/// Warnings of examples that are measured and were trained on.
enum SharedRows {
    /// - Parameter name: what the examples are for.
    static func warn(_ shared: Int, of all: Int, _ name: String) {
        guard shared > 0 else { return }
        Console.note(
            "warning: \(Console.grouped(shared)) of the \(Console.grouped(all)) \(name) examples \(shared == 1 ? "is" : "are") in the training data too; leave \(shared == 1 ? "it" : "them") out of one of the two"
        )
    }
}
