import ArgumentParser
import Foundation
import LanguageModels
import PEFTDistributed
import PEFTSupport
import Torch

struct ModelOptions: ParsableArguments {
    @Option(
        name: [.customLong("model"), .short],
        help: ArgumentHelp(
            "Model folder (Hugging Face layout), GGUF file, or name on the Hugging Face Hub; tiny-t5 is built in.",
            valueName: "model"))
    var model: String?

    @Option(help: "Device: cpu, cuda, cuda:N or mps.")
    var device = "cpu"

    @Option(
        help: ArgumentHelp(
            "Data type of frozen weights and activations: float32, bfloat16 or float16; trained parameters stay float32.",
            valueName: "type"))
    var precision = Precision.float32

    @Option(help: ArgumentHelp("Number of CPU threads.", valueName: "n"))
    var threads: Int?

    @OptionGroup var formats: WeightFormatOptions

    /// Sets the number of threads and returns the device.
    func prepare() throws -> Device {
        try require("--threads", threads)
        if let threads { Runtime.threads = threads }
        return try Device(device)
    }

    /// The same for one of several processes: those of a host divide its processors and GPUs.
    func prepare(for launch: LaunchEnvironment?) throws -> Device {
        let device = try prepare()
        guard let launch else { return device }
        let processors = ProcessInfo.processInfo
        if threads == nil,
            let share = launch.threads(
                processors: processors.activeProcessorCount, of: processors.processorCount)
        {
            Runtime.threads = share
        }
        if self.device == "cuda", let local = launch.localRank { return try Device("cuda:\(local)") }
        return device
    }

    /// The model's folder with its weight formats.
    ///
    /// `--weights` sets the format of projections; without it `storage` does, unless the folder is already quantized.
    /// `--embedding-weights`, or else `embeddings`, sets the format of embeddings.
    func folder(
        default fallback: String? = nil, weights storage: WeightStorage? = nil, embeddings: WeightStorage? = nil
    ) throws -> ModelFolder {
        let (stored, storedEmbeddings) = try formats.storages()
        var folder = try HubFetch.model(model ?? fallback ?? ModelLocator.embedded)
            .with(embeddings: storedEmbeddings ?? embeddings)
        folder.precision = precision.type
        if let stored { return folder.with(weights: stored) }
        return folder.isQuantized ? folder : folder.with(weights: storage)
    }

    /// Whether weights may be kept as stored where text is generated.
    var mayKeepStoredWeights: Bool { precision == .float32 && device == "cpu" }
}

/// The weight formats of a base model.
struct WeightFormatOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Weight format of the base's projections: \(WeightStorage.names.joined(separator: ", ")), int4-g32 and other group-wise integers (default: quantized weights as stored, others fp32, or 16-bit ones as stored where text is generated).",
            valueName: "format"))
    var weights: String?

    @Option(
        help: ArgumentHelp(
            "Weight format of the embedding table and the output layer (default: 16-bit tables as stored beside quantized projections, else fp32).",
            valueName: "format"))
    var embeddingWeights: String?

    /// - Throws: ``UsageError`` for an unknown format.
    func storages() throws -> (projections: WeightStorage?, embeddings: WeightStorage?) {
        try checkingOptions {
            (
                try weights.map { try WeightStorage($0) },
                try embeddingWeights.map { try WeightStorage(embeddings: $0) }
            )
        }
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
