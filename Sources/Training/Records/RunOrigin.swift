import Foundation
import PEFTSupport
import Torch

/// How a training run was started and on what it computed: with the rest of ``TrainingRecord``, all that repeats it.
///
/// The version, the seed and the number of processes are the record's.
package struct RunOrigin: Codable, Sendable, Equatable {
    /// A file that the run read.
    package struct File: Codable, Sendable, Equatable {
        /// The path, relative to ``RunOrigin/folder`` unless it is absolute.
        package var path: String
        package var bytes: Int
        /// The SHA-256 of its content, in hexadecimal digits.
        package var sha256: String

        package init(path: String, bytes: Int, sha256: String) {
            (self.path, self.bytes, self.sha256) = (path, bytes, sha256)
        }
    }

    /// Options of `peft train` with those of a configuration file, without the output and options of display.
    package var arguments: [String]
    /// The working directory.
    package var folder: String
    /// Data files, and the files of an adapter whose training was continued.
    package var files: [File]
    /// Digest of the encoded examples.
    package var examples: String?
    /// Digest of the base model's configuration and of some of its weights.
    package var base: String?
    package var libtorch: String
    package var processor: String?
    /// The library of large matmuls.
    package var blas: String
    package var threads: Int
    package var device: String

    /// The origin of a run in this process.
    package init(arguments: [String], folder: String, files: [File], device: Device) {
        (self.arguments, self.folder, self.files) = (arguments, folder, files)
        (libtorch, processor, blas) = (Runtime.libtorch, Runtime.processor, Runtime.blas)
        threads = Runtime.threads
        self.device = device.description
    }

    /// Why the run can't be repeated with the files as they are now, a line for each that is missing or has changed.
    package func changes(to now: [File]) -> [String] {
        files.compactMap { file in
            guard let other = now.first(where: { $0.path == file.path }) else {
                return "\(file.path) is missing"
            }
            if other.bytes != file.bytes {
                return "\(file.path) has changed: \(file.bytes) bytes then, \(other.bytes) now"
            }
            return other.sha256 == file.sha256
                ? nil : "\(file.path) has changed: its SHA-256 was \(file.sha256), and is \(other.sha256)"
        }
    }

    /// The first difference in what the run computes on: its base model or its examples.
    package func inputDifference(from then: RunOrigin) -> String? {
        if let base, let known = then.base, base != known { return "the base model has changed" }
        guard let examples, let known = then.examples, examples != known else { return nil }
        return "the encoded examples differ, although the files don't: the tokenizer or the chat template has changed"
    }

    /// A line for each difference that may change floating-point results.
    package func environmentDifferences(from then: RunOrigin) -> [String] {
        [
            ("libtorch", then.libtorch, libtorch), ("processor", then.processor ?? "unknown", processor ?? "unknown"),
            ("matmuls", then.blas, blas), ("threads", "\(then.threads)", "\(threads)"),
            ("device", then.device, device),
        ].filter { $0.1 != $0.2 }.map { Self.line($0.0, $0.1, $0.2) }
    }

    /// A difference of one value.
    package static func line(_ name: String, _ then: String, _ now: String) -> String {
        "\(name): \(then) then, \(now) now"
    }
}

extension TrainingHistory {
    /// The first loss that differs from another run's, as text; `nil` if none does.
    package func difference(from other: TrainingHistory) -> String? {
        for (name, ours, theirs) in [
            ("training", training, other.training), ("validation", validation, other.validation),
        ] {
            for (point, known) in zip(ours, theirs) where point != known {
                return
                    "\(name) loss \(known.loss) at step \(known.step) then, \(point.loss) at step \(point.step) now"
            }
            if ours.count != theirs.count {
                return "\(theirs.count) \(name) losses then, \(ours.count) now"
            }
        }
        return nil
    }
}
