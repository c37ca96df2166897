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

    @Option(
        help: ArgumentHelp(
            "Number of runs at the same time, which divide the threads. Requires --output or --html.", valueName: "n")
    )
    var jobs = 1

    /// Makes the runs that the state lacks, if there are to be several at a time.
    func runConcurrently(
        _ state: ComparisonState?, _ comparison: @autoclosure () throws -> Comparison, isQuiet: Bool
    ) throws {
        guard jobs > 1, let state else { return }
        let comparison = try comparison()
        let pending = try comparison.unfinished(state)
        try ConcurrentRuns(
            pending: pending, labels: comparison.methodLabels, jobs: jobs, lock: state.lock?.file, isQuiet: isQuiet
        ).run()
    }

    /// Checks the outputs and opens the saved state beside the first of them; without outputs there is no state.
    func open(output: String?, html: String?) throws -> (state: ComparisonState?, adapters: URL?) {
        try require("--jobs", jobs)
        guard let path = output ?? html else {
            guard jobs == 1 else {
                throw UsageError(
                    "--jobs requires an output file, next to which the runs' results are stored",
                    remedy: "add --output or --html")
            }
            guard !resume else {
                throw PEFTError(
                    "--resume requires an output file, next to which the state is saved",
                    remedy: "add --output or --html")
            }
            return (nil, try keep.map { try Output.folder($0) })
        }
        if ConcurrentRuns.index != nil {
            return (ComparisonState(sharing: Output.url(path)), keep.map { Output.url($0) })
        }
        ComparisonState.removeIfFinished(Output.url(path))
        try Output.check([html, output])
        guard !AtomicFile.isDevice(Output.url(path)) else { return (nil, try keep.map { try Output.folder($0) }) }
        let state = try ComparisonState(besides: Output.url(path), resume ? .resuming : .fromScratch)
        if let lock = state.lock { Interrupt.removing(lock.file) }
        guard let keep else { return (state, nil) }
        // On resuming, the folders of finished runs exist.
        return (state, resume ? Output.url(keep) : try Output.folder(keep))
    }
}
