// How long switching between adapters takes, and what a row of a mixed batch costs, on a model of BERT-base's shape
// (110 M parameters) with random weights and LoRA (r 8) on the queries and values of all layers.
import Foundation
import LanguageModels
import PEFT
import Support
import Torch
import TorchNN

func seconds(_ body: () throws -> Void) rethrows -> Double {
    let start = ContinuousClock.now
    try body()
    let elapsed = start.duration(to: .now).components
    return Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18
}

let folder = FileManager.default.temporaryDirectory.appendingPathComponent("peft-switching-\(UUID().uuidString)")
defer { try? FileManager.default.removeItem(at: folder) }
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
print("BERT-base's shape: \(model.parameterCount) parameters, \(Runtime.threads) threads")

let lora = LoRA.Configuration(rank: 8, alpha: 16, targets: ["query", "value"])
let names = ["a", "b"]
let adapters = try names.enumerated().map { index, name in
    let adapter = try Adapter(MethodChoice(LoRA.self, lora), on: model, name: name, seed: UInt64(index))
    adapter.setTrainable(false)
    try withTorchErrors {
        for (_, parameter) in adapter.added { parameter.parameter.tensor.fillNormal(deviation: 0.02, from: &random) }
    }
    try adapter.deactivate()
    return adapter
}
let rows = [(input: (0..<32).map { 1000 + $0 }, target: [0])]
@MainActor func scores() throws -> Tensor {
    try withTorchErrors { withoutGradients { model.logits(model.batch(rows, device: .cpu)) } }
}
adapters[0].activate()
let first = try scores()
var times: [Double] = []
for round in 0..<1000 {
    let (from, to) = (adapters[round % 2], adapters[(round + 1) % 2])
    times.append(
        try seconds {
            try from.deactivate()
            to.activate()
        })
}
let same = try scores().isIdentical(to: first)
times.sort()
print(
    String(
        format: "switch: median %.4f ms, 99th percentile %.4f ms of 1000; A → B → A bit for bit: %@",
        times[500] * 1e3, times[990] * 1e3, same ? "yes" : "no"))
