/// Splits where the script changes. Spaces, and characters newer than Unicode 9, have no script and stay with the
/// text before them; at the beginning of a piece they are dropped, as in the reference.
struct UnicodeScripts: PreTokenizer {
    func split(_ text: inout PreTokenizedText) {
        var result: [Range<Int>] = []
        for piece in text.pieces {
            var start: Int?
            var last: UInt8?
            var index = piece.lowerBound
            while index < piece.upperBound {
                let (scalar, length) = text.bytes.scalar(at: index)
                if let script = UnicodeScripts.script(of: scalar) {
                    if script != last {
                        if let start { result.append(start..<index) }
                        start = index
                    }
                    last = script
                }
                index += length
            }
            if let start { result.append(start..<piece.upperBound) }
        }
        if result.first?.lowerBound != text.pieces.first?.lowerBound { text.startsText = false }
        text.pieces = result
    }

    /// Index of the script; "common" is one too.
    private static func script(of scalar: Unicode.Scalar) -> UInt8? {
        let value = scalar.value
        if value == 0x20 { return nil }
        if value >= 0x370 {
            switch scalar.properties.generalCategory {
            case .unassigned, .privateUse, .surrogate: return nil
            default: guard scalar.isOf(unicode: 9) else { return nil }
            }
        }
        // The last run that begins at the scalar or before it.
        var (low, high) = (0, ScriptTable.starts.count)
        while high - low > 1 {
            let middle = (low + high) / 2
            if ScriptTable.starts[middle] <= value { low = middle } else { high = middle }
        }
        return ScriptTable.scripts[low]
    }
}
