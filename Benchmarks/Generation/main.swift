// Our side of the generation benchmark: `generation-benchmark FOLDER` runs FOLDER/run.json and prints one line of
// JSON. `generation.py` creates FOLDER; see `Run` for the fields of the file.
import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch
import TorchNN

/// A batch for greedy decoding of a fixed number of tokens.
struct Case {
    var name: String
    var rows: Int
    /// Names of adapters: none for the base model, one for all examples, or one per example.
    var adapters: [String]
}

struct Run {
    var cases: [Case]
    var rounds: Int
    var newTokens: Int
    var threads: Int?
    /// Weight format of the projections.
    var storage: WeightStorage?
    /// Name of the model's folder or GGUF file.
    var model: String
    var prompts: [[Int]]

    init(_ json: JSON) throws {
        rounds = json["rounds"]?.int ?? 3
        newTokens = json["new_tokens"]?.int ?? 48
        threads = json["threads"]?.int
        storage = try json["weights"]?.string.map { try WeightStorage($0) }
        model = json["model"]?.string ?? "model"
        prompts = (json["prompts"]?.array ?? []).map { ($0.array ?? []).compactMap(\.int) }
        cases = (json["cases"]?.array ?? []).map { entry in
            Case(
                name: entry["name"]?.string ?? "", rows: entry["rows"]?.int ?? 1,
                adapters: (entry["adapters"]?.array ?? []).compactMap(\.string))
        }
    }
}

func seconds(_ body: () throws -> Void) rethrows -> Double {
    let start = ContinuousClock.now
    try body()
    let elapsed = start.duration(to: .now).components
    return Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18
}

/// Memory-read bandwidth of all threads in bytes per second, the best of several passes over 1 GB.
func readingRate(_ numbers: Tensor) throws -> Double {
    try withTorchErrors {
        let best = try (0..<3).map { _ in
            try seconds {
                _ = numbers.sum().item()
                try checkTorchErrors()
            }
        }.min()
        return Double(numbers.byteCount) / (best ?? .infinity)
    }
}

func measure(_ folder: URL) throws -> JSON {
    let run = try Run(JSON.read(folder.appendingPathComponent("run.json")))
    Runtime.keepFreedMemory()
    if let threads = run.threads { Runtime.threads = threads }
    let numbers = Tensor.full([1 << 28], 1)
    let model = try ModelFolder(folder.appendingPathComponent(run.model)).with(weights: run.storage)
        .keepingStoredWeights().load()
    let set = AdapterSet(on: model)
    for name in Set(run.cases.flatMap(\.adapters)).sorted() {
        try set.add(AdapterFolder(folder.appendingPathComponent(name)), name: name)
    }
    let batch = MixedBatch(set)
    var parameters = GenerateParameters(maxNewTokens: run.newTokens)
    parameters.minNewTokens = run.newTokens
    var short = parameters
    (short.maxNewTokens, short.minNewTokens) = (1, 1)

    func texts(_ item: Case, _ parameters: GenerateParameters) throws -> [[Int]] {
        let prompts = Array(run.prompts.prefix(item.rows))
        if item.adapters.count > 1 {
            let names = prompts.indices.map { Optional(item.adapters[$0 % item.adapters.count]) }
            return try batch.generate(prompts, adapters: names, parameters: parameters)
        }
        try set.activate(item.adapters.first)
        defer { try? set.activate(nil) }
        return try Generator(model, parameters).generate(prompts)
    }

    var results: [String: JSON] = [:]
    var times: [String: [(whole: Double, first: Double)]] = [:]
    for item in run.cases {
        results[item.name] = .array(try texts(item, parameters).map { .array($0.map(JSON.integer)) })
    }
    // On a shared machine memory bandwidth varies by a factor of two within seconds: each round measures its own.
    var rates: [Double] = []
    for _ in 0..<run.rounds {
        let before = try readingRate(numbers)
        for item in run.cases {
            let first = try seconds { _ = try texts(item, short) }
            let whole = try seconds { _ = try texts(item, parameters) }
            times[item.name, default: []].append((whole, first))
        }
        rates.append(try (before + readingRate(numbers)) / 2)
    }
    // A decode step reads every projection, including the output layer, and only some rows of the embedding table.
    let projections = model.namedModules().compactMap { $0.module as? Linear }.flatMap(\.weight.parameters)
        .reduce(0) { $0 + $1.parameter.tensor.byteCount }
    let cases = run.cases.map { item -> JSON in
        let list = times[item.name] ?? []
        return [
            "name": .string(item.name), "texts": results[item.name] ?? .null,
            "seconds": .array(list.map { JSON.number($0.whole) }),
            "stepSeconds": .array(list.map { .number(($0.whole - $0.first) / Double(max(1, run.newTokens - 1))) }),
        ]
    }
    return [
        "cases": .array(cases), "readingRates": .array(rates.map(JSON.number)),
        "projectionBytes": .integer(projections),

        "peakBytes": .integer(Runtime.peakMemory ?? 0),
    ]
}

guard CommandLine.arguments.count == 2 else {
    FileHandle.standardError.write(Data("usage: generation-benchmark FOLDER\n".utf8))
    exit(64)
}
do {
    print(try measure(URL(fileURLWithPath: CommandLine.arguments[1])).text(indent: nil))
} catch {
    FileHandle.standardError.write(Data("generation-benchmark: \(error)\n".utf8))
    exit(1)
}
