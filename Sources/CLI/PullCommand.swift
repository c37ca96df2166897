import ArgumentParser
import Foundation
import LanguageModels
import PEFTHub
import PEFTSupport

struct PullCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull",
        abstract: "Download a model or an adapter from the Hugging Face Hub.",
        discussion: """
            peft pull google/flan-t5-base
            peft pull my-team/my-adapter@v2
            peft pull google/flan-t5-base --include '*.json' --exclude 'generation*'

            Downloads the files needed to run it to the cache that huggingface_hub uses, and prints the folder:
            configuration, tokenizer, weights as safetensors (.bin only if there are none) and, for an adapter, its base
            model. An interrupted download resumes where it stopped. HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and
            HF_HUB_OFFLINE have the same meaning as in huggingface_hub.
            """)

    @Argument(help: "Model or adapter: owner/name, or owner/name@revision.") var name: String
    @Option(
        help: ArgumentHelp("Download the files that match this pattern instead. Repeatable.", valueName: "pattern"))
    var include: [String] = []
    @Option(help: ArgumentHelp("Skip the files that match this pattern. Repeatable.", valueName: "pattern"))
    var exclude: [String] = []
    @Flag(help: "Download all files.") var all = false
    @Flag(help: "Skip the base model of an adapter.") var noBase = false
    @Flag(help: "Suppress progress output.") var quiet = false
    @Flag(help: "Print the result as JSON.") var json = false

    func run() throws {
        guard !all || include.isEmpty else {
            throw UsageError("--all and --include are mutually exclusive", remedy: "use one of them")
        }
        let selection = FileSelection(all ? .all : .needed, includes: include, excludes: exclude)
        Interrupt.install()
        do {
            let snapshot = try pull(checkingOptions { try HubName(name) }, selection)
            let base = try baseName(of: snapshot).map { try pull($0, FileSelection()) }
            if json {
                var fields = Self.json(snapshot)
                fields["base"] = base.map { .object(Self.json($0)) }
                print(JSON.object(fields).text())
            } else {
                print(snapshot.folder.path)
                if let base { print(base.folder.path) }
            }
        } catch is CancellationError {
            Console.error("interrupted; rerun the same command to continue")
            throw ExitCode(Interrupt.exitCode)
        }
    }

    private func pull(_ name: HubName, _ selection: FileSelection) throws -> HubSnapshot {
        let isQuiet = quiet || json
        let snapshot = try HubFetch.pull(name, selection, isQuiet: isQuiet) { Interrupt.isRequested }
        let new = snapshot.files.filter(\.isNew)
        if !isQuiet {
            let size = snapshot.files.reduce(0) { $0 + $1.size }
            Console.note(
                "\(name) at \(snapshot.commit.prefix(7)): \(counted(snapshot.files.count, "file")), \(Console.bytes(size))"
                    + (new.isEmpty
                        ? ", already in the cache"
                        : ", downloaded \(new.count) of them (\(Console.bytes(new.reduce(0) { $0 + $1.size })))"))
        }
        return snapshot
    }

    /// The base model of an adapter, if its name can be one on the hub.
    private func baseName(of snapshot: HubSnapshot) throws -> HubName? {
        let file = snapshot.folder.appendingPathComponent("adapter_config.json")
        guard !noBase, include.isEmpty, FileManager.default.fileExists(atPath: file.path) else { return nil }
        let configuration = try JSON.read(file)
        guard let base = configuration["base_model_name_or_path"]?.string,
            base != ModelLocator.embedded, !FileManager.default.fileExists(atPath: base)
        else { return nil }
        let revision = configuration["revision"]?.string.map { "@\($0)" } ?? ""
        return try? HubName(base + revision)
    }

    private static func json(_ snapshot: HubSnapshot) -> [String: JSON] {
        [
            "name": .string(snapshot.name.id), "revision": .string(snapshot.name.revision),
            "commit": .string(snapshot.commit), "folder": .string(snapshot.folder.path),
            "files": .array(
                snapshot.files.map {
                    ["path": .string($0.path), "size": .integer($0.size), "fetched": .bool($0.isNew)]
                }),
        ]
    }
}
