// Fine-tunes a model with LoRA on a few rows, measures it and uses it: the program of docs/library.md.
// From the checkout: swift run -c release summarize-example [DATA [MODEL]]
import Foundation
import LanguageModels
import PEFT
import Training

let arguments = Array(CommandLine.arguments.dropFirst())
let file = arguments.first ?? "Examples/dialogues/train.jsonl"
let base = arguments.dropFirst().first ?? "tiny-t5"
let folder = try ModelFolder(ModelLocator.folder(base))
let summaries = DataSettings(
    prompt: "Summarize the following conversation.\n\n{dialogue}\n\nSummary: ", target: "{summary}")
let data = try TrainingData([file], limit: 64, for: folder, settings: summaries)
for note in data.notes { print(note) }

let model = try data.folder.load()
let lora = MethodChoice(LoRA.self, .init(rank: 16, alpha: 32, targets: ["all-linear"]))
let adapter = try Adapter(lora, on: model)

var settings = TrainingConfiguration()
settings.learningRate = 1e-3
settings.epochs = 1
let trainer = try Trainer(adapter, training: data.training, validation: data.validation, configuration: settings)
try trainer.run { event in
    if case .step(let progress) = event { print("step \(progress.step): loss \(progress.loss)") }
    return true  // false stops
}

let evaluator = Evaluator(
    model: model, tokenizer: data.tokenizer, parameters: GenerateParameters(maxNewTokens: 60))
let result = try data.examples([file], limit: 8, for: model).evaluate(with: evaluator)
print("ROUGE-1 on eight of the rows:", result.metrics["rouge1"]?.value ?? .nan)

// What was trained writes, is switched, and becomes a model of its own.
let output = FileManager.default.temporaryDirectory.appendingPathComponent("summarize-example-\(getpid())")
defer { try? FileManager.default.removeItem(at: output) }
try adapter.save(to: output.appendingPathComponent("my-adapter"), base: base)

let generator = try Generator(model, GenerateParameters(maxNewTokens: 60, beams: 4))
let prompts = data.training.prefix(2).map(\.input)
for tokens in try generator.generate(prompts) { print(data.tokenizer.decode(tokens: tokens)) }

let adapters = AdapterSet(on: try folder.load())
try adapters.add(AdapterFolder(output.appendingPathComponent("my-adapter")), name: "summaries")
try adapters.activate("summaries")
try adapters.activate(nil)

try adapter.merge()
try model.save(to: output.appendingPathComponent("my-model"))
