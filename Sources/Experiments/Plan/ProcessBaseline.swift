import LanguageModels
import PEFT
import PEFTSupport
import Torch
import Training

/// The memory of a training process without the model and its data.
package enum ProcessBaseline {
    /// Resident memory of this process after a few steps with a tiny model: the program's and libtorch's
    /// pages that training touches, threads, and the buffers of its kernels.
    ///
    /// The only measured term of a plan: it depends on the build of libtorch and on the machine.
    /// - Returns: bytes; `nil` if unknown on this system.
    package static func measure() throws -> Int? {
        let configuration: JSON = [
            "model_type": "t5", "vocab_size": 512, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 1,
            "num_heads": 4, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.1, "tie_word_embeddings": false,
        ]
        let model = try ModelRegistry.outline(configuration, file: "the model that measures the process")
        try withTorchErrors {
            var random = SeededRandom(seed: 0)
            for (_, parameter) in model.parameters() {
                let value = Tensor.zeros(parameter.tensor.shape)
                value.fillNormal(deviation: 0.05, from: &random)
                parameter.tensor = value
            }
        }
        let adapter = try Adapter(MethodChoice(try PEFTMethods.named("lora")), on: model)
        var settings = TrainingConfiguration()
        settings.steps = 2
        settings.batchSize = 2
        let rows = (0..<4).map { row in
            EncodedExample(
                input: (0..<64).map { ($0 * 7 + row) % 512 }, target: (0..<16).map { ($0 * 5 + row) % 512 })
        }
        try Trainer(adapter, training: rows, validation: [], configuration: settings).run()
        return Runtime.residentMemory
    }
}
