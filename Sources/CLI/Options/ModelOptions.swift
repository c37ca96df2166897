import ArgumentParser
import Foundation
import LanguageModels
import Support
import Torch

struct ModelOptions: ParsableArguments {
    @Option(
        name: [.customLong("model"), .short],
        help: ArgumentHelp(
            "Folder in Hugging Face's layout, a GGUF file, a name on a hub, or tiny-t5, which comes with the program.",
            valueName: "model"))
    var model: String?

    @Option(help: "cpu, cuda, cuda:N or mps.")
    var device = "cpu"

    @Option(
        help: ArgumentHelp(
            "Type of the frozen weights and of the computation: float32, bfloat16 or float16; trained parameters stay float32.",
            valueName: "type"))
    var precision = Precision.float32

    @Option(help: ArgumentHelp("Number of CPU threads.", valueName: "n"))
    var threads: Int?

    @Option(
        help: ArgumentHelp(
            "Weight format of the base's projections: \(WeightStorage.names.joined(separator: ", ")) (as stored, in fp32).",
            valueName: "format"))
    var weights: String?

    @Option(
        help: ArgumentHelp(
            "Weight format of the embedding table and the output layer (16-bit ones as stored beside quantized projections, else fp32).",
            valueName: "format"))
    var embeddingWeights: String?

    /// The device, with the number of threads set.
    func prepare() throws -> Device {
        try require("--threads", threads)
        if let threads { Runtime.threads = threads }
        return try Device(device)
    }

    /// The model's folder, its projections to be kept as `--weights` says, else as `storage` does where the folder isn't
    /// quantised already; and its embeddings as `--embedding-weights` says, else as `embeddings` does.
    func folder(
        default fallback: String? = nil, keeping storage: WeightStorage? = nil, embeddings: WeightStorage? = nil
    ) throws -> ModelFolder {
        let stored = try checkingOptions { try weights.map { try WeightStorage($0) } }
        let storedEmbeddings = try checkingOptions { try embeddingWeights.map { try WeightStorage($0) } }
        var folder = try HubFetch.model(model ?? fallback ?? ModelLocator.embedded)
            .keepingEmbeddings(storedEmbeddings ?? embeddings)
        folder.precision = precision.type
        if let stored { return folder.keeping(stored) }
        return folder.isQuantized ? folder : folder.keeping(storage)
    }
}

enum Precision: String, ExpressibleByArgument, CaseIterable {
    case float32, bfloat16, float16

    var type: DType {
        switch self {
        case .float32: .float32
        case .bfloat16: .bfloat16
        case .float16: .float16
        }
    }
}
