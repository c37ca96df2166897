import Foundation
import LanguageModels
import PEFT
import Training

let folder = try ModelFolder(ModelLocator.folder("tiny-t5"))
let summaries = DataSettings(prompt: "Summarize: {dialogue}", target: "{summary}")
let data = try TrainingData(["Examples/dialogues/train.jsonl"], for: folder, settings: summaries)
let model = try data.folder.load()
let lora = MethodChoice(LoRA.self, .init(rank: 16, alpha: 32, targets: ["all-linear"]))
let adapter = try Adapter(lora, on: model)
var settings = TrainingConfiguration()
settings.learningRate = 1e-3
try Trainer(adapter, training: data.training, validation: data.validation, configuration: settings).run()
try adapter.save(to: URL(fileURLWithPath: "my-adapter"), base: "tiny-t5")
