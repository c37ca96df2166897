// Time to switch between adapters, and the cost of a batch whose examples use different adapters, on a model of
// BERT-base's shape (110 M parameters) with random weights: LoRA of rank 8 on queries and values, and of rank 16 on
// all projections.
import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch
import TorchNN

func seconds(_ body: () throws -> Void) rethrows -> Double {
    let start = ContinuousClock.now
    try body()
    let elapsed = start.duration(to: .now).components
    return Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18
}

let configuration: JSON = ["model_type": "bert", "id2label": ["0": "no", "1": "yes"]]
let model = try ModelRegistry.outline(configuration, file: "config.json")
var random = SeededRandom(seed: 1)
try withTorchErrors {
    for (_, parameter) in model.parameters() {
        let tensor = Tensor.empty(parameter.tensor.shape)
        tensor.fillNormal(deviation: 0.02, from: &random)
        parameter.tensor = tensor
    }
}
#if DEBUG
    let build = "debug build"
#else
    let build = "release build"
#endif
print("BERT-base's shape: \(model.parameterCount) parameters, \(Runtime.threads) threads, \(build)")

/// LoRA adapters with non-zero deltas.
@MainActor func adapters(_ count: Int, rank: Int, targets: [String]) throws -> AdapterSet {
    let set = AdapterSet(on: model)
    let lora = LoRA.Configuration(rank: rank, alpha: 16, targets: targets)
    for index in 0..<count {
        let adapter = try Adapter(MethodChoice(LoRA.self, lora), on: model, name: "\(index)", seed: UInt64(index))
        try withTorchErrors {
            for (_, parameter) in adapter.added {
                parameter.parameter.tensor.detached().fillNormal(deviation: 0.02, from: &random)
            }
        }
        try set.add(adapter)
    }
    return set
}

let rows = (0..<8).map { row in (input: (0..<32).map { 1000 + 40 * row + $0 }, target: [0]) }
@MainActor func scores() throws -> Tensor {
    try withTorchErrors { withoutGradients { model.logits(model.batch(rows, device: .cpu)) } }
}

for (label, rank, targets) in [("q, v, r 8", 8, ["query", "value"]), ("all linears, r 16", 16, ["all-linear"])] {
    let set = try adapters(2, rank: rank, targets: targets)
    try set.activate("0")
    let first = try scores()
    var times: [Double] = []
    for round in 1...1000 { times.append(try seconds { try set.activate("\(round % 2)") }) }
    let same = try scores().isIdentical(to: first)
    times.sort()
    let places = set.adapters["0"]?.attached.count ?? 0
    print(
        String(
            format:
                "%@ at %d modules: switch median %.4f ms, 99th percentile %.4f ms of 1000; A → B → A bit for bit: %@",
            label, places, times[500] * 1e3, times[990] * 1e3, same ? "yes" : "no"))
    try set.activate(nil)
}

// Eight examples with one adapter, and with eight; alternating, since other programs share the machine.
let set = try adapters(8, rank: 16, targets: ["all-linear"])
let batch = MixedBatch(set)
var (alone, mixed, base): ([Double], [Double], [Double]) = ([], [], [])
for _ in 0..<10 {
    try set.activate(nil)
    base.append(try seconds { _ = try scores() })
    try set.activate("0")
    alone.append(try seconds { _ = try scores() })
    mixed.append(try seconds { _ = try batch.run(set.names) { try scores() } })
}
func median(_ times: [Double]) -> Double { times.sorted()[times.count / 2] * 1e3 }
print(
    String(
        format: "8 examples of 32 tokens: base %.1f ms, one adapter %.1f ms, 8 adapters in one batch %.1f ms",
        median(base),
        median(alone), median(mixed)))
