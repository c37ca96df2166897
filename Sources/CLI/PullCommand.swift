import ArgumentParser
import Foundation
import Hub
import LanguageModels
import Support

struct PullCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull",
        abstract: "Fetch a model or an adapter from a hub into the cache that Python tools share.",
        discussion: """
            peft pull google/flan-t5-base
            peft pull my-team/my-adapter@v2
            peft pull google/flan-t5-base --include '*.json' --exclude 'generation*'

            Fetched is what running it takes: configuration, tokenizer, and weights as safetensors (as .bin only where
            there are none); for an adapter its base model too. Printed is the folder. An interrupted pull goes on where
            it stopped. HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE mean what they mean to Python.
            """)

    @Argument(help: "A model or an adapter: owner/name, or owner/name@revision.") var name: String
    @Option(help: ArgumentHelp("Fetch the files of this pattern instead; repeatable.", valueName: "pattern"))
    var include: [String] = []
    @Option(help: ArgumentHelp("Leave out the files of this pattern; repeatable.", valueName: "pattern"))
    var exclude: [String] = []
    @Flag(help: "Fetch every file.") var all = false
    @Flag(help: "Leave out the base model of an adapter.") var noBase = false
    @Flag(help: "Suppress progress output.") var quiet = false
    @Flag(help: "Print the result as JSON.") var json = false

    func run() throws {
        guard !all || include.isEmpty else {
            throw UsageError("--all and --include were both given", remedy: "leave one out")
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
            Console.error("stopped; the same command continues")
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
                        ? ", all there already"
                        : ", fetched \(new.count) of them (\(Console.bytes(new.reduce(0) { $0 + $1.size })))"))
        }
        return snapshot
    }

    /// The base model that an adapter names, if it is one that a hub could have.
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
