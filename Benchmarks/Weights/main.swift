// Cost of a quantized base model: `weights-benchmark FOLDER WEIGHTS [ROWS LENGTH STEPS]` trains a LoRA adapter over
// the model in FOLDER with its projections stored as WEIGHTS, then decodes, and prints one line of JSON. WEIGHTS is
// a weight format, and after a + that of the embedding table and the output layer. `weights.py` creates the folder
// and runs the formats in turn.
import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch
import TorchNN
import Training

func fail(_ message: String) -> Never {
    FileHandle.standardError.write(Data("weights-benchmark: \(message)\n".utf8))
    exit(1)
}

func seconds(_ body: () throws -> Void) rethrows -> Double {
    let start = ContinuousClock.now
    try body()
    let elapsed = start.duration(to: .now).components
    return Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18
}

let arguments = CommandLine.arguments
guard arguments.count >= 3 else { fail("usage: weights-benchmark FOLDER WEIGHTS [ROWS LENGTH STEPS]") }
let numbers = arguments.dropFirst(3).compactMap { Int($0) }
let (rows, length, steps) = (
    numbers.first ?? 4, numbers.dropFirst().first ?? 512, numbers.dropFirst(2).first ?? 3
)
do {
    Runtime.keepFreedMemory()
    let kinds = try arguments[2].split(separator: "+").map { try WeightStorage(String($0)) }
    guard let storage = kinds.first, kinds.count <= 2 else {
        fail("WEIGHTS is one weight format, or two joined by '+'")
    }
    let model = try ModelFolder(URL(fileURLWithPath: arguments[1])).with(weights: storage)
        .with(embeddings: kinds.dropFirst().first).load()
    let loaded = Runtime.peakMemory ?? 0
    let projections = model.namedModules().filter { $0.path != model.outputLayer }
        .compactMap { $0.module as? Linear }.flatMap(\.weight.parameters)
        .reduce(0) { $0 + $1.parameter.tensor.byteCount }
    let vocabulary = model.configuration["vocab_size"]?.int ?? 2

    // Decoding with batch size 1, without the adapter.
    let decoding = try withTorchErrors {
        try withoutGradients { () -> [Double] in
            let prompt = PackedSequences([(0..<16).map { 3 + $0 * 7 % (vocabulary - 3) }], device: .cpu)
            let state = model.startDecoding(prompt, capacity: 40, beams: 1)
            return try (0..<32).map { step in
                try seconds {
                    _ = state.step(Tensor([3 + step]))
                    try checkTorchErrors()
                }
            }
        }
    }

    var choice = MethodChoice(try PEFTMethods.named("lora"))
    try choice.set("rank", to: "16")
    try choice.set("targets", to: "all-linear")
    let adapter = try Adapter(choice, on: model)
    let optimizer = TrainingConfiguration().makeOptimizer(adapter)
    var losses: [Double] = []
    var durations: [Double] = []
    for step in 0..<steps {
        let batch = (0..<rows).map { row in
            let ids = (0..<length).map { 3 + ($0 * 31 + row * 7 + step) % (vocabulary - 3) }
            return (input: Array(ids.dropLast(length / 8)), target: Array(ids.suffix(length / 8)))
        }
        durations.append(
            try seconds {
                try withTorchErrors {
                    let data = model.batch(batch, device: .cpu)
                    let loss = model.lossSum(data, labelSmoothing: 0) / Double(data.targetCount)
                    loss.backward()
                    losses.append(loss.item())
                }
                optimizer.update(learningRate: 1e-3)
                optimizer.clearGradients()
            })
    }
    let result: JSON = [
        "weights": .string(arguments[2]), "projectionBytes": .integer(projections),
        "modelBytes": .integer(model.byteCount), "loadedBytes": .integer(loaded),
        "peakBytes": .integer(Runtime.peakMemory ?? 0), "losses": .array(losses.map(JSON.number)),
        "stepSeconds": .number(durations.min() ?? 0),
        "tokenSeconds": .number(decoding.sorted()[decoding.count / 2]),
    ]
    print(result.text(indent: nil))
} catch {
    fail("\(error)")
}
