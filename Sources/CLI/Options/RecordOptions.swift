import ArgumentParser
import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Training

/// Options of `train` for the records that other programs read.
struct RecordOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Folder for TensorBoard's event file and metrics.csv (default: runs, in the output folder).",
            valueName: "folder"))
    var logDir: String?
    @Option(
        help: ArgumentHelp(
            "Number of validation examples to generate texts for at each validation, to follow them over the run.",
            valueName: "n"))
    var samples = 0
    @Flag(help: "Write neither event files nor metrics.csv.") var noLog = false

    func validate() throws {
        guard (0...100).contains(samples) else {
            throw ValidationError("--samples is \(samples); use a number from 0 to 100")
        }
        guard !noLog || logDir == nil && samples == 0 else {
            throw ValidationError("--no-log excludes --log-dir and --samples; omit one of them")
        }
    }

    /// The validation examples to generate texts for; `nil` without `--samples`.
    func validationSamples(_ data: TrainingData) throws -> ValidationSamples? {
        guard samples > 0 else { return nil }
        guard data.head == nil else {
            throw UsageError("--samples is for models that generate text", remedy: "omit it")
        }
        guard !data.validation.isEmpty else {
            throw UsageError(
                "--samples needs validation examples", remedy: "add --validation or --validation-split")
        }
        return ValidationSamples(data.validation, tokenizer: data.tokenizer, count: samples)
    }

    /// Checks the folder before any work.
    /// - Returns: the folder that `--log-dir` names.
    /// - Throws: ``PEFTError`` if it holds another run's records.
    func folder(resuming: Bool) throws -> URL? {
        guard let logDir else { return nil }
        let folder = Output.url(logDir)
        guard resuming || !RunLog.exists(in: folder) else {
            throw PEFTError("\(logDir) holds the records of another run", remedy: "use another --log-dir")
        }
        return folder
    }
}
