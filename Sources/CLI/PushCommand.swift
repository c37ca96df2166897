import ArgumentParser
import Foundation
import PEFTHub
import PEFTSupport
import Training

struct PushCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "push",
        abstract: "Upload an adapter or a model to the Hugging Face Hub.",
        discussion: """
            peft push my-adapter my-team/my-adapter --private
            peft push my-adapter my-team/my-adapter --dry-run

            Creates the repository if there is none, and uploads all files of the folder in one commit. The token is that
            of HF_TOKEN, or of hf auth login. HF_ENDPOINT is the address of another hub.
            """)

    @Argument(help: "Folder of an adapter or a model.") var folder: String
    @Argument(help: "Repository: owner/name, or owner/name@branch of an existing branch.") var name: String
    @Flag(help: "Create the repository as private.") var `private` = false
    @Flag(help: "Create the repository as public, even if the owner's default is private.") var `public` = false
    @Option(help: ArgumentHelp("Commit message.", valueName: "text")) var message = "Upload with swift-peft"
    @Flag(help: "List what would be uploaded, and change nothing.") var dryRun = false
    @Flag(help: "Suppress progress output.") var quiet = false
    @Flag(help: "Print the result as JSON.") var json = false

    func validate() throws {
        guard !(`private` && `public`) else {
            throw ValidationError("--private and --public are mutually exclusive; use one of them")
        }
    }

    func run() throws {
        let url = Output.url(folder)
        let isModel = ["adapter_config.json", "config.json"].contains {
            FileManager.default.fileExists(atPath: url.appendingPathComponent($0).path)
        }
        guard isModel else {
            throw PEFTError(
                "\(folder) is not the folder of an adapter or a model: it has neither adapter_config.json nor config.json",
                remedy: "pass the output folder of peft train")
        }
        let target = try checkingOptions { try HubName(name) }
        let files = try UploadFile.all(in: url)
        if !files.contains(where: { $0.path == ModelCard.fileName }) {
            Console.warn("\(folder) has no \(ModelCard.fileName); the hub will show no model card")
        }
        let upload = try HubUpload(
            files, to: target, message: message, isPrivate: `private` ? true : `public` ? false : nil)
        Interrupt.install()
        let display = ProgressDisplay(isQuiet: quiet || json || !Console.errorIsTerminal)
        let total = files.reduce(0) { $0 + $1.size }
        do {
            let result = try upload.run(isDryRun: dryRun) { sent in
                display.update(
                    share: total > 0 ? Double(sent) / Double(total) : 1,
                    "\(target) \(Console.bytes(sent)) of \(Console.bytes(total))")
            } isCancelled: {
                Interrupt.isRequested
            }
            display.finish()
            report(result, files, target, total)
        } catch is CancellationError {
            display.finish()
            Console.error("interrupted; nothing was committed")
            throw ExitCode(Interrupt.exitCode)
        }
    }

    private func report(_ result: HubUpload.Result, _ files: [UploadFile], _ target: HubName, _ total: Int) {
        if json {
            var fields: [String: JSON] = [
                "name": .string(target.id), "branch": .string(target.revision), "url": .string(result.url),
                "created": .bool(result.isNewRepository && !dryRun), "dry_run": .bool(dryRun),
                "files": .array(
                    files.map { file in
                        [
                            "path": .string(file.path), "size": .integer(file.size),
                            "stored": result.modes[file.path].map { .string($0.rawValue) } ?? .null,
                        ]
                    }),
            ]
            fields["commit"] = result.commit.map { .string($0) }
            return print(JSON.object(fields).text())
        }
        if dryRun {
            if result.isNewRepository {
                print("would create \(target.id)\(`private` ? ", private" : "")")
            }
            for file in files {
                let note =
                    result.isNewRepository ? "" : result.modes[file.path].map { ", \($0.rawValue)" } ?? ", ignored"
                print("would upload \(file.path) (\(Console.bytes(file.size))\(note))")
            }
            return
        }
        if result.isNewRepository { Console.note("created \(target.id)") }
        let known = result.known.isEmpty ? "" : ", \(counted(result.known.count, "large file")) of them unchanged"
        Console.note("uploaded \(counted(result.modes.count, "file")), \(Console.bytes(total))\(known)")
        print(result.url)
    }
}
