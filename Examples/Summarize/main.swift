// Fine-tunes the embedded model with LoRA on a few rows, measures it and uses it: the README's example, whole.
// From the checkout: swift run -c release summarize-example Examples/dialogues/train.jsonl
import Foundation
import LanguageModels
import PEFT
import Tokenizers
import Training

let file = CommandLine.arguments.dropFirst().first ?? "Examples/dialogues/train.jsonl"
let folder = try ModelFolder(ModelLocator.folder("tiny-t5"))
let tokenizer = try Tokenizer.load(folder: folder.url)
let prompt = try Template("Summarize the following conversation.\n\n{dialogue}\n\nSummary: ")
let rows = try examples(
    from: DataSet.read(URL(fileURLWithPath: file), limit: 64), prompt: prompt, target: Template("{summary}"))

let model = try folder.load()
let lora = MethodChoice(LoRA.self, .init(rank: 16, alpha: 32, targets: ["q", "v"]))
let adapter = try Adapter(lora, on: model)

var settings = TrainingConfiguration()
settings.learningRate = 1e-3
settings.epochs = 1
let trainer = try Trainer(
    adapter, training: tokenizer.encode(rows, maxInputTokens: 512).examples, validation: [], configuration: settings)
try trainer.run { event in
    if case .step(let progress) = event { print("step \(progress.step): loss \(progress.loss)") }
    return true  // false stops
}

let evaluator = Evaluator(model: model, tokenizer: tokenizer, parameters: GenerateParameters(maxNewTokens: 60))
let result = try evaluator.evaluate(Array(rows.prefix(8)))
print("ROUGE-1 on eight of the rows:", result.metrics["rouge1"]?.value ?? .nan)

// What was trained writes, is switched, and becomes a model of its own.
let output = FileManager.default.temporaryDirectory.appendingPathComponent("summarize-example-\(getpid())")
defer { try? FileManager.default.removeItem(at: output) }
try adapter.save(to: output.appendingPathComponent("my-adapter"), base: "tiny-t5")

let generator = try Generator(model, GenerateParameters(maxNewTokens: 60, beams: 4))
let prompts = rows.prefix(2).map { tokenizer.encode(text: $0.prompt) }
for tokens in try generator.generate(prompts) { print(tokenizer.decode(tokens: tokens)) }

let adapters = AdapterSet(on: try folder.load())
try adapters.add(AdapterFolder(output.appendingPathComponent("my-adapter")), name: "summaries")
try adapters.activate("summaries")
try adapters.activate(nil)

try adapter.merge()
try model.save(to: output.appendingPathComponent("my-model"))
