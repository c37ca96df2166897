// Our side of the training benchmark: `training-benchmark FOLDER` runs FOLDER/run.json and prints one line of JSON.
// `training.py` creates FOLDER; see `Run` for the fields of the file.
import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Torch
import TorchNN
import Training

struct Run {
    var steps: Int
    var batch: Int
    var threads: Int?
    var device: Device
    var precision: DType
    /// Whether to use random weights instead of a file.
    var isRandom: Bool
    /// Weight format of the frozen projections.
    var storage: WeightStorage?
    /// The method of a new adapter; without it, the adapter in FOLDER/adapter is trained.
    var method: MethodChoice?

    init(_ json: JSON) throws {
        steps = json["steps"]?.int ?? 8
        batch = json["batch"]?.int ?? 8
        threads = json["threads"]?.int
        device = try Device(json["device"]?.string ?? "cpu")
        precision = DType(rawValue: json["precision"]?.string ?? "") ?? .float32
        isRandom = json["random"]?.bool ?? false
        storage = try json["weights"]?.string.map { try WeightStorage($0 == "nf4" ? "nf4-double" : $0) }
        guard let name = json["method"]?.string else { return }
        var choice = MethodChoice(try PEFTMethods.named(name))
        for (field, value) in json["options"]?.object ?? [:] {
            try choice.set(field, to: value.string ?? value.text())
        }
        method = choice
    }

    func model(_ folder: URL) throws -> any LanguageModel {
        let folder = try ModelFolder(folder)
        guard isRandom else { return try folder.with(weights: storage).load(dtype: precision, device: device) }
        let model = try folder.outline()
        // A few random numbers, repeated: the measurements don't depend on the values.
        var random = SeededRandom(seed: 0)
        let numbers = Tensor.empty([1 << 22], dtype: .float32)
        numbers.fillNormal(deviation: 0.02, from: &random)
        let source = numbers.to(precision).to(device)
        let bytes = (numbers * 3000).to(.uint8).to(device)
        func filled(_ tensor: Tensor) -> Tensor {
            if tensor.shape.count == 1, tensor.dtype.isFloatingPoint, tensor.dim(0) != 16 {
                return .full(tensor.shape, tensor.dim(0) > 65536 ? 1e-3 : 1, dtype: precision, device: device)
            }
            let chunk = tensor.dtype.isFloatingPoint ? source : bytes
            let copies = (tensor.count + chunk.count - 1) / chunk.count
            let whole = copies > 1 ? Tensor.concatenated(Array(repeating: chunk, count: copies)) : chunk
            return whole.narrowed(axis: 0, 0..<tensor.count).reshaped(tensor.shape)
        }
        for (_, parameter) in model.parameters() { parameter.tensor = filled(parameter.tensor) }
        if let storage, let settings = storage.format.blocks {
            for (_, linear) in storage.projections(of: model) {
                let weight = BlockQuantizedWeight(
                    outputs: linear.outputs, inputs: linear.inputs, settings: settings, device: device)
                weight.codes.tensor = filled(weight.codes.tensor)
                weight.table.tensor = settings.code.table.to(device)
                weight.scales.tensor =
                    settings.isDouble
                    ? bytes.narrowed(axis: 0, 0..<1).expanded(weight.scales.tensor.shape).contiguous()
                    : .full(weight.scales.tensor.shape, 0.05, device: device)
                weight.nestedScales?.tensor.fill(0.01)
                weight.nestedTable?.tensor.fill(1)
                linear.weight = weight
            }
        }
        if precision != .float32 { model.precision = (precision, device) }
        return model
    }
}

func rows(_ file: URL) throws -> [EncodedExample] {
    (try JSON.read(file).array ?? []).map { row in
        func ids(_ key: String) -> [Int] { (row[key]?.array ?? []).compactMap(\.int) }
        return EncodedExample(input: ids("input"), target: ids("target"))
    }
}

func measure(_ folder: URL) throws -> JSON {
    let run = try Run(JSON.read(folder.appendingPathComponent("run.json")))
    Runtime.keepFreedMemory()
    if let threads = run.threads { Runtime.threads = threads }
    let rows = try rows(folder.appendingPathComponent("rows.json"))
    let model = try run.model(folder.appendingPathComponent("model"))
    let adapter =
        try run.method.map { try Adapter($0, on: model) }
        ?? AdapterFolder(folder.appendingPathComponent("adapter")).attach(to: model, isTrainable: true)
    for parameter in adapter.parameters { parameter.tensor.requiresGrad = true }
    let optimizer = TrainingConfiguration().makeOptimizer(adapter)
    let weights = Runtime.deviceMemory(run.device)?.now
    var (losses, seconds, tokens): ([Double], [Double], [Int]) = ([], [], [])
    for step in 0..<run.steps {
        let part = rows[(step * run.batch)..<((step + 1) * run.batch)]
        let start = ContinuousClock.now
        try withTorchErrors {
            let data = model.batch(part.map { ($0.input, $0.target) }, device: run.device)
            let loss = DropoutScope.run(seed: 0, stream: UInt64(step)) {
                model.computing { model.lossSum(data, labelSmoothing: 0) / Double(data.targetCount) }
            }
            loss.backward()
            losses.append(loss.item())
            optimizer.update(learningRate: 1e-3)
            optimizer.clearGradients()
            // Synchronizes with the device.
            _ = adapter.parameters.first?.tensor.sum().item()
        }
        let elapsed = start.duration(to: .now).components
        seconds.append(Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18)
        tokens.append(part.reduce(0) { $0 + $1.input.count + $1.target.count })
    }
    return [
        "losses": .array(losses.map(JSON.number)), "seconds": .array(seconds.map(JSON.number)),
        "tokens": .array(tokens.map(JSON.integer)), "blas": .string(Runtime.blas),
        "weightBytes": .integer(weights ?? 0), "trained": .integer(adapter.trainableCount),
        "peakBytes": .integer(Runtime.deviceMemory(run.device)?.peak ?? Runtime.peakMemory ?? 0),
    ]
}

guard CommandLine.arguments.count == 2 else {
    FileHandle.standardError.write(Data("usage: training-benchmark FOLDER\n".utf8))
    exit(64)
}
do {
    print(try measure(URL(fileURLWithPath: CommandLine.arguments[1])).text(indent: nil))
} catch {
    FileHandle.standardError.write(Data("training-benchmark: \(error)\n".utf8))
    exit(1)
}
