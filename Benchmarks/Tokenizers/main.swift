// Our side of the tokenizer benchmark: `tokenizer-benchmark FOLDER` loads the tokenizer in FOLDER and answers each line
// of standard input, written by `tokenizer_speed.py`, with one line of JSON.
import Foundation
import PEFTSupport
import PEFTTokenizers

func fail(_ message: String) -> Never {
    FileHandle.standardError.write(Data("tokenizer-benchmark: \(message)\n".utf8))
    exit(1)
}

/// Wall-clock and processor time of `body`, in seconds.
func seconds(_ body: () throws -> Void) rethrows -> (wall: Double, processor: Double) {
    func processor() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }
    let (start, before) = (ContinuousClock.now, processor())
    try body()
    return ((ContinuousClock.now - start) / .seconds(1), processor() - before)
}

func answer(_ time: (wall: Double, processor: Double)) -> JSON {
    ["seconds": .number(time.wall), "processor": .number(time.processor)]
}

/// Records prefixed with their length in four bytes.
func records<Record>(_ file: String, unit: Int, _ make: (ArraySlice<UInt8>) -> Record) throws -> [Record] {
    let bytes = try [UInt8](Data(contentsOf: URL(fileURLWithPath: file)))
    var result: [Record] = []
    var index = 0
    while index + 4 <= bytes.count {
        let count = (0..<4).reduce(0) { $0 | Int(bytes[index + $1]) << (8 * $1) } * unit
        index += 4
        guard index + count <= bytes.count else { fail("\(file) is damaged") }
        result.append(make(bytes[index..<index + count]))
        index += count
    }
    return result
}

func texts(_ file: String) throws -> [String] { try records(file, unit: 1) { String(decoding: $0, as: UTF8.self) } }

func lists(_ file: String) throws -> [[Int]] {
    try records(file, unit: 4) { bytes in
        stride(from: bytes.startIndex, to: bytes.endIndex, by: 4).map { start in
            (0..<4).reduce(0) { $0 | Int(bytes[start + $1]) << (8 * $1) }
        }
    }
}

/// Counts lines, decoded texts and pairs that differ from the reference's in this folder.
func check(_ tokenizer: Tokenizer, _ folder: String) throws -> JSON {
    let lines = try texts(folder + "/lines.bin")
    let ids = try lists(folder + "/ids.bin")
    let decoded = try texts(folder + "/decoded.bin")
    let whole = try texts(folder + "/whole.bin")
    let pairs = try lists(folder + "/pairs.bin")
    let types = try lists(folder + "/types.bin")
    guard lines.count == ids.count, lines.count == decoded.count, lines.count == whole.count else {
        fail("the files in \(folder) have different numbers of records")
    }
    func same(_ a: String, _ b: String) -> Bool { a.utf8.elementsEqual(b.utf8) }
    var examples: [JSON] = []
    var wrong = (ids: 0, decoded: 0, pairs: 0, streamed: 0)
    func show(_ what: String, _ line: String, _ ours: Any, _ theirs: Any) {
        if examples.count < 20 { examples.append(.string("\(what) \(line.debugDescription): \(ours) \(theirs)")) }
    }
    for (number, line) in lines.enumerated() {
        let own = tokenizer.encode(text: line)
        if own != ids[number] {
            wrong.ids += 1
            show("ids", line, own, ids[number])
        }
        for (skips, wanted) in [(true, decoded[number]), (false, whole[number])] {
            let text = tokenizer.decode(tokens: ids[number], skipSpecialTokens: skips)
            if !same(text, wanted) {
                wrong.decoded += 1
                show("text", line, text, wanted)
            }
            var stream = tokenizer.streamingDecoder(skipSpecialTokens: skips)
            let streamed = ids[number].reduce(into: "") { $0 += stream.append($1) } + stream.finish()
            if !same(streamed, wanted) {
                wrong.streamed += 1
                show("streamed", line, streamed, wanted)
            }
        }
    }
    for (index, wanted) in pairs.enumerated() {
        let number = index * 29
        let own = tokenizer.encode(text: lines[number], pair: lines[(number * 7 + 3) % lines.count])
        if own.ids != wanted || own.typeIDs != types[index] {
            wrong.pairs += 1
            show("pair", lines[number], own.ids, wanted)
        }
    }
    return [
        "ids": .integer(wrong.ids), "decoded": .integer(wrong.decoded), "pairs": .integer(wrong.pairs),
        "streamed": .integer(wrong.streamed), "examples": .array(examples),
    ]
}

/// Encodes all lines on the given number of threads.
func encode(_ lines: [String], _ tokenizer: Tokenizer, threads: Int) {
    DispatchQueue.concurrentPerform(iterations: threads) { thread in
        var tokens = 0
        for index in stride(from: thread, to: lines.count, by: threads) {
            tokens += tokenizer.encode(text: lines[index]).count
        }
        if tokens == 0 { fail("no tokens") }
    }
}

guard CommandLine.arguments.count == 2 else { fail("usage: tokenizer-benchmark FOLDER") }
do {
    let folder = URL(fileURLWithPath: CommandLine.arguments[1])
    let tokenizer = try Tokenizer.load(folder: folder)
    while let line = readLine() {
        let words = line.split(separator: "\t").map(String.init)
        let reply: JSON
        switch (words.first, words.count) {
        case ("check", 2): reply = try check(tokenizer, words[1])
        case ("load", 1): reply = answer(try seconds { _ = try Tokenizer.load(folder: folder) })
        case ("time", 3):
            let lines = try texts(words[1])
            reply = answer(seconds { encode(lines, tokenizer, threads: Int(words[2]) ?? 1) })
        default: fail("unknown command '\(line)'; use check, load or time")
        }
        FileHandle.standardOutput.write(Data((reply.text(indent: nil) + "\n").utf8))
    }
} catch {
    fail("\(error)")
}
