import PEFTSupport

/// SentencePiece's convention: a space is written as a visible character, "▁", which begins words.
struct Metaspace: Sendable {
    /// Which pieces get the prefix.
    enum PrependScheme: String, Sendable {
        case always, first, never
    }

    let replacement: Unicode.Scalar
    let prependScheme: PrependScheme
    /// Whether to split before each replacement character.
    let split: Bool

    init(replacement: Unicode.Scalar = "▁", prependScheme: PrependScheme = .always, split: Bool = true) {
        self.replacement = replacement
        self.prependScheme = prependScheme
        self.split = split
    }

    /// Reads both the current fields and the older `add_prefix_space`.
    init(_ fields: StageFields) throws {
        replacement = try fields.scalar("replacement")
        split = try fields.bool("split", default: true)
        let addsPrefix = try fields.bool("add_prefix_space", default: true)
        guard let name = fields.values["prepend_scheme"], name != .null else {
            prependScheme = addsPrefix ? .always : .never
            return
        }
        guard let scheme = name.string.flatMap(PrependScheme.init) else {
            throw fields.malformed("prepend_scheme must be always, first or never")
        }
        guard addsPrefix || scheme == .never else {
            throw fields.malformed("add_prefix_space is false, but prepend_scheme is \(scheme.rawValue)")
        }
        prependScheme = scheme
    }
}

/// Replaces spaces, adds the prefix, and splits before each replacement character.
struct MetaspacePreTokenizer: PreTokenizer {
    let metaspace: Metaspace
    let replacement: [UInt8]

    init(_ metaspace: Metaspace) {
        self.metaspace = metaspace
        replacement = Array(String(metaspace.replacement).utf8)
    }

    func split(_ text: inout PreTokenizedText) {
        if text.origins != nil { return splitAligned(&text) }
        let source = text.bytes
        let pieces = text.pieces
        guard !pieces.isEmpty else { return }
        var result: [Range<Int>] = []
        result.reserveCapacity(pieces.count)
        let spaces = source.count { $0 == 0x20 }
        let size = source.count + spaces * (replacement.count - 1) + pieces.count * replacement.count
        text.bytes = [UInt8](unsafeUninitializedCapacity: size) { bytes, count in
            func appendReplacement() {
                for byte in replacement {
                    bytes[count] = byte
                    count += 1
                }
            }
            for (number, piece) in pieces.enumerated() {
                var start = count
                let hasPrefix =
                    source[piece.lowerBound] == 0x20 || isReplacement(source, piece.lowerBound, piece.upperBound)
                let isWanted =
                    switch metaspace.prependScheme {
                    case .always: true
                    case .first: number == 0 && text.startsText
                    case .never: false
                    }
                if isWanted, !hasPrefix { appendReplacement() }
                var index = piece.lowerBound
                while index < piece.upperBound {
                    let byte = source[index]
                    if byte != 0x20, byte != replacement[0] || !isReplacement(source, index, piece.upperBound) {
                        bytes[count] = byte
                        count += 1
                        index += 1
                        continue
                    }
                    if metaspace.split, start < count {
                        result.append(start..<count)
                        start = count
                    }
                    appendReplacement()
                    index += byte == 0x20 ? 1 : replacement.count
                }
                result.append(start..<count)
            }
        }
        text.pieces = result
    }

    /// The same with alignment: the prefix is aligned to the first character.
    private func splitAligned(_ text: inout PreTokenizedText) {
        guard let origins = text.origins else { return }
        let source = text.bytes
        var bytes: [UInt8] = []
        var places: [Range<Int>] = []
        var result: [Range<Int>] = []
        func append(_ new: some Collection<UInt8>, _ origin: Range<Int>) {
            bytes += new
            places += repeatElement(origin, count: new.count)
        }
        for (number, piece) in text.pieces.enumerated() {
            var start = bytes.count
            let hasPrefix =
                source[piece.lowerBound] == 0x20 || isReplacement(source, piece.lowerBound, piece.upperBound)
            let isWanted =
                metaspace.prependScheme == .always
                || metaspace.prependScheme == .first && number == 0 && text.startsText
            if isWanted, !hasPrefix { append(replacement, origins[piece.lowerBound]) }
            var index = piece.lowerBound
            while index < piece.upperBound {
                let isSpace = source[index] == 0x20
                guard isSpace || isReplacement(source, index, piece.upperBound) else {
                    append(CollectionOfOne(source[index]), origins[index])
                    index += 1
                    continue
                }
                if metaspace.split, start < bytes.count {
                    result.append(start..<bytes.count)
                    start = bytes.count
                }
                append(replacement, origins[index])
                index += isSpace ? 1 : replacement.count
            }
            result.append(start..<bytes.count)
        }
        (text.bytes, text.origins, text.pieces) = (bytes, places, result)
    }

    @inline(__always)
    private func isReplacement(_ bytes: [UInt8], _ index: Int, _ end: Int) -> Bool {
        guard bytes[index] == replacement[0], index + replacement.count <= end else { return false }
        var offset = 1
        while offset < replacement.count, bytes[index + offset] == replacement[offset] { offset += 1 }
        return offset == replacement.count
    }
}
