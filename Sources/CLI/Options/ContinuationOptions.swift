import ArgumentParser
import Experiments
import Foundation
import PEFTSupport

/// Options of `compare` and `sweep` for resuming and for keeping adapters.
struct ContinuationOptions: ParsableArguments {
    @Flag(help: "Resume an interrupted comparison; finished runs are not repeated. Requires --output or --html.")
    var resume = false
    @Option(
        help: ArgumentHelp("Save the trained adapters to subfolders of this folder.", valueName: "folder"))
    var keep: String?

    /// Checks the outputs and opens the saved state beside the first of them; without outputs there is no state.
    func open(output: String?, html: String?) throws -> (state: ComparisonState?, adapters: URL?) {
        guard let path = output ?? html else {
            guard !resume else {
                throw PEFTError(
                    "--resume requires an output file, next to which the state is saved",
                    remedy: "add --output or --html")
            }
            return (nil, try keep.map { try Output.folder($0) })
        }
        ComparisonState.removeIfFinished(Output.url(path))
        try Output.check([html, output])
        guard !AtomicFile.isDevice(Output.url(path)) else { return (nil, try keep.map { try Output.folder($0) }) }
        let state = try ComparisonState(besides: Output.url(path), resume ? .resuming : .fromScratch)
        Interrupt.removing(state.lock.file)
        guard let keep else { return (state, nil) }
        // On resuming, the folders of finished runs exist.
        return (state, resume ? Output.url(keep) : try Output.folder(keep))
    }
}
