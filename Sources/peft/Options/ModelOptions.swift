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
            "Type of the frozen weights and of what is computed: float32, bfloat16 or float16 (what is trained stays in float32).",
            valueName: "type"))
    var precision = Precision.float32

    @Option(help: ArgumentHelp("Threads that one operation may use.", valueName: "n"))
    var threads: Int?

    @Option(
        help: ArgumentHelp(
            "How the base's projections are kept: \(WeightStorage.names.joined(separator: ", ")) (as they are stored, in fp32).",
            valueName: "kind"))
    var weights: String?

    @Option(
        help: ArgumentHelp(
            "How the embedding table and the output layer are kept: the same kinds (16-bit ones as they are stored where projections are kept in fewer bits, else in fp32).",
            valueName: "kind"))
    var embeddingWeights: String?

    /// The device, with the number of threads set.
    func prepare() throws -> Device {
        if let threads {
            guard threads >= 1 else {
                throw PEFTError("\(threads) threads were asked for", remedy: "at least 1 has to be")
            }
            Runtime.threads = threads
        }
        return try Device(device)
    }

    /// The model's folder, its projections to be kept as `--weights` says, else as `storage` does where the folder isn't
    /// quantised already; and its embeddings as `--embedding-weights` says, else as `embeddings` does.
    func folder(
        default fallback: String? = nil, keeping storage: WeightStorage? = nil, embeddings: WeightStorage? = nil
    ) throws -> ModelFolder {
        var folder = try HubFetch.model(model ?? fallback ?? ModelLocator.embedded)
            .keepingEmbeddings(embeddingWeights.map { try WeightStorage($0) } ?? embeddings)
        folder.precision = precision.type
        if let weights { return folder.keeping(try WeightStorage(weights)) }
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
