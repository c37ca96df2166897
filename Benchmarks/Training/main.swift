// Our side of the training benchmark: `training-benchmark FOLDER STEPS BATCH` trains the model in FOLDER/model with the
// adapter in FOLDER/adapter on FOLDER/rows.json, and prints one line of JSON. FOLDER is made by `training.py`.
import Foundation
import LanguageModels
import PEFT
import Support
import Torch
import TorchNN
import Training

func fail(_ message: String) -> Never {
    FileHandle.standardError.write(Data("training-benchmark: \(message)\n".utf8))
    exit(1)
}

let arguments = CommandLine.arguments
guard arguments.count == 4, let steps = Int(arguments[2]), let batch = Int(arguments[3]) else {
    fail("usage: training-benchmark FOLDER STEPS BATCH")
}
do {
    let folder = URL(fileURLWithPath: arguments[1])
    Runtime.keepFreedMemory()
    Runtime.threads = ProcessInfo.processInfo.activeProcessorCount
    let rows = (try JSON.read(folder.appendingPathComponent("rows.json")).array ?? []).map { row -> EncodedExample in
        func ids(_ key: String) -> [Int] { (row[key]?.array ?? []).compactMap(\.int) }
        return EncodedExample(input: ids("input"), target: ids("target"))
    }
    let model = try ModelFolder(folder.appendingPathComponent("model")).load()
    let full = !FileManager.default.fileExists(atPath: folder.appendingPathComponent("adapter").path)
    let adapter =
        try full
        ? Adapter(MethodChoice(FullFineTuning.self), on: model)
        : AdapterFolder(folder.appendingPathComponent("adapter")).attach(to: model, isTrainable: true)
    let parameters = adapter.parameters
    for parameter in parameters { parameter.tensor.requiresGrad = true }
    let optimizer = TrainingConfiguration().makeOptimizer(adapter)
    var losses: [Double] = []
    var seconds: [Double] = []
    var tokens: [Int] = []
    for step in 0..<steps {
        let part = rows[(step * batch)..<((step + 1) * batch)]
        let start = ContinuousClock.now
        try withTorchErrors {
            let data = model.batch(part.map { ($0.input, $0.target) }, device: .cpu)
            let loss = DropoutScope.run(seed: 0, stream: UInt64(step)) {
                model.lossSum(data, labelSmoothing: 0) / Double(data.targetCount)
            }
            loss.backward()
            losses.append(loss.item())
        }
        optimizer.update(learningRate: 1e-3)
        optimizer.clearGradients()
        let elapsed = start.duration(to: .now).components
        seconds.append(Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18)
        tokens.append(part.reduce(0) { $0 + $1.input.count + $1.target.count })
    }
    let result: JSON = [
        "losses": .array(losses.map(JSON.number)), "seconds": .array(seconds.map(JSON.number)),
        "tokens": .array(tokens.map(JSON.integer)), "peakBytes": .integer(Runtime.peakMemory ?? 0),
    ]
    print(result.text(indent: nil))
} catch {
    fail("\(error)")
}
