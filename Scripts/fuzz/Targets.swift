// The fuzz targets: each feeds bytes to one reader. A reader may throw a PEFTError; a trap, an error of another type, or
// a run of many seconds is a finding. PEFT_FUZZ_TARGET names the target of a process.
import Foundation
@testable import PEFTSupport

@testable import Constraints
@testable import PEFTJinja
@testable import PEFTTokenizers
@testable import RowReaders
@testable import TensorReaders

/// Runs a reader.
private func expectingErrors(_ body: () throws -> Void) {
    do { try withTokenizerErrors(body) } catch is PEFTError {} catch { fatalError("not a PEFTError: \(error)") }
}

/// A file with the fuzzer's bytes, in memory where the system has such a folder.
private let folder: URL = {
    try? FileManager.default.createDirectory(at: folderName, withIntermediateDirectories: true)
    atexit { try? FileManager.default.removeItem(at: folderName) }
    return folderName
}()

private let folderName: URL = {
    let parent = FileManager.default.fileExists(atPath: "/dev/shm") ? "/dev/shm" : NSTemporaryDirectory()
    return URL(fileURLWithPath: parent).appendingPathComponent("peft-fuzz-\(getpid())")
}()

private func file(_ name: String, _ data: Data) -> URL {
    let url = folder.appendingPathComponent(name)
    try? data.write(to: url)
    return url
}

private let sample = "Hello wörld 12\n the quick  brown <s> fox."

private func encode(_ tokenizer: Tokenizer) {
    let ids = tokenizer.encode(text: sample)
    _ = tokenizer.decode(tokens: ids)
    _ = tokenizer.decode(tokens: [0, 1, 2, 3, 5, 99, 1 << 20])
}

/// Bytes up to the first line break, and the rest.
private func parted(_ data: Data) -> (Data, Data) {
    guard let end = data.firstIndex(of: 0x0A) else { return (data, Data()) }
    return (data[..<end], data[data.index(after: end)...])
}

/// All bytes, some longer tokens, and an end token.
private let vocabulary = try? ConstraintVocabulary(
    bytes: (0..<256).map { [UInt8($0)] } + ["{\"", "\":", "true", "null", "12", ""].map { Array($0.utf8) },
    endTokens: [261])

private let targets: [String: @Sendable (Data) throws -> Void] = [
    "json": { data in
        let value = try JSON.parse(data, name: "json")
        let text = value.text()
        guard try JSON.parse(Data(text.utf8), name: "json") == value else { fatalError("another value: \(text)") }
        _ = try OrderedJSON.parse(data, name: "json")
    },
    "gguf": { data in
        let header = try GGUFHeader(data, name: "gguf")
        try encode(GGUFTokenizer(header, name: "gguf").tokenizer())
    },
    "tokenizer": { data in
        try encode(
            Tokenizer(TokenizerFile(file("tokenizer.json", data), declared: []), SpecialTokens(folder: folder)))
    },
    "sentencepiece": { data in
        let url = file("spiece.model", data)
        try encode(Tokenizer(SentencePieceFile(url), SpecialTokens(folder: folder), name: "spiece.model"))
    },
    "jinja": { data in
        let template = try JinjaTemplate(String(decoding: data, as: UTF8.self))
        let messages: JSON = [
            ["role": "user", "content": "Tom <b> ran"], ["role": "assistant", "content": "away\n"],
        ]
        _ = try template.render(
            [
                "messages": JinjaValue(messages), "bos_token": .string("<s>"), "n": .integer(3),
                "add_generation_prompt": .boolean(true),
            ],
            now: Date(timeIntervalSince1970: 1_700_000_000))
    },
    "expression": { data in
        let (pattern, text) = parted(data)
        guard let expression = try? LimitedExpression(String(decoding: pattern, as: UTF8.self)) else { return }
        _ = try expression.ranges(in: String(decoding: text, as: UTF8.self))
    },
    "jsonl": { data in _ = try DataSet.read(file("rows.jsonl", data), keepsText: true) },
    "json-rows": { data in _ = try DataSet.read(file("rows.json", data), keepsText: true) },
    "csv": { data in _ = try DataSet.read(file("rows.csv", data)) },
    "tsv": { data in _ = try DataSet.read(file("rows.tsv", data)) },
    "template": { data in
        let (text, row) = parted(data)
        let template = try Template(String(decoding: text, as: UTF8.self))
        for row in try DataSet.read(file("rows.jsonl", row)) { _ = try template.render(row) }
    },
    "schema": { data in
        let (schema, text) = parted(data)
        let format = try ResponseFormat.schema(schema, name: "schema")
        guard let vocabulary else { return }
        var constraint = try JSONConstraint(format, vocabulary)
        var mask = TokenMask(vocabulary: 262)
        for byte in text.prefix(64) {
            mask = TokenMask(vocabulary: 262)
            constraint.allow(into: &mask)
            guard (0..<262).contains(where: { mask.contains($0) }) else { fatalError("a dead end") }
            let token = mask.contains(Int(byte)) ? Int(byte) : (0..<262).first { mask.contains($0) } ?? 261
            if token == 261 { return }
            try constraint.accept(token: token)
        }
    },
    "response-format": { data in
        _ = try ResponseFormat.parse(OrderedJSON.parse(data, name: "the request"))?.validate()
    },
    "safetensors": { data in
        let read = try SafetensorsFile(file("model.safetensors", data))
        for name in read.entries.keys { _ = try read.tensor(name) }
    },
    "pickle": { data in
        let read = try TorchFile(file("pytorch_model.bin", data))
        for name in read.entries.keys { _ = try read.tensor(name) }
    },
    "npy": { data in _ = try NumpyFile.read(file("array.npy", data)) },
]

private let target: @Sendable (Data) throws -> Void = {
    let name = ProcessInfo.processInfo.environment["PEFT_FUZZ_TARGET"] ?? ""
    guard let target = targets[name] else {
        print("PEFT_FUZZ_TARGET must be one of \(targets.keys.sorted().joined(separator: " "))")
        exit(2)
    }
    return target
}()

/// libFuzzer's entry point.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let data = bytes.map { Data(bytes: $0, count: count) } ?? Data()
    expectingErrors { try target(data) }
    return 0
}
