import ArgumentParser
import Experiments
import Foundation
import Support

/// What `compare` and `sweep` keep of their runs.
struct ContinuationOptions: ParsableArguments {
    @Flag(help: "Continue a run that was cut off; finished runs are not repeated. Needs --output or --html.")
    var resume = false
    @Option(
        help: ArgumentHelp("Save each trained adapter into a folder of its own in this one.", valueName: "folder"))
    var keep: String?

    /// Checks the outputs and opens the state beside the first of them; there is none without outputs.
    func open(output: String?, html: String?) throws -> (state: ComparisonState?, adapters: URL?) {
        guard let path = output ?? html else {
            guard !resume else {
                throw PEFTError(
                    "--resume needs a file beside which the state of a run lies", remedy: "give --output or --html")
            }
            return (nil, try keep.map { try Output.folder($0) })
        }
        ComparisonState.removeIfFinished(Output.url(path))
        try Output.check([html, output])
        guard !AtomicFile.isDevice(Output.url(path)) else { return (nil, try keep.map { try Output.folder($0) }) }
        let state = try ComparisonState(besides: Output.url(path), resume ? .resuming : .anew)
        Interrupt.removing(state.lock.file)
        guard let keep else { return (state, nil) }
        // Folders of runs that are finished are there.
        return (state, resume ? Output.url(keep) : try Output.folder(keep))
    }
}
