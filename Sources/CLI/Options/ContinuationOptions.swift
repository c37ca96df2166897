import ArgumentParser
import Experiments
import Foundation
import PEFTDistributed
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

    @Option(
        help: ArgumentHelp(
            "Write a script that makes the runs as a Slurm job array, --jobs at the same time, and exit. Requires --output or --html.",
            valueName: "file"))
    var slurmArray: String?

    /// Writes the script of `--slurm-array`.
    /// - Parameters:
    ///   - labels: of the runs.
    ///   - preparing: whether the runs share a result that is computed first.
    /// - Returns: whether there is nothing else to do.
    func writesScript(_ labels: [String], preparing: Bool) throws -> Bool {
        guard let slurmArray, !SlurmArray.isTask else { return false }
        let script = SlurmArray(labels: labels, jobs: jobs, isPrepared: preparing)
        try script.write(to: Output.url(slurmArray))
        return true
    }

    /// Makes the runs that the state lacks, if there are to be several at a time.
    /// - Parameters:
    ///   - job: processes that divide the runs.
    ///   - run: makes one run.
    func runConcurrently(
        _ state: ComparisonState?, _ comparison: @autoclosure () throws -> Comparison, _ job: DistributedJob?,
        isQuiet: Bool, run: (Int, ComparisonState) throws -> Void
    ) throws {
        guard jobs > 1 || job != nil, let state else { return }
        let comparison = try comparison()
        let pending = try comparison.unfinished(state)
        if let job {
            return try RankRuns(job).lead(state, pending, comparison.methodLabels, isQuiet: isQuiet) {
                try run($0, state)
            }
        }
        try ConcurrentRuns(
            pending: pending, labels: comparison.methodLabels, jobs: jobs, lock: state.lock?.file, isQuiet: isQuiet
        ).run()
    }

    /// Checks the outputs and opens the saved state beside the first of them; without outputs there is no state.
    /// - Parameter job: processes that divide the runs; only the first has the state.
    func open(
        output: String?, html: String?, _ job: DistributedJob?
    ) throws -> (state: ComparisonState?, adapters: URL?) {
        try require("--jobs", jobs)
        guard jobs == 1 || job == nil else {
            throw UsageError(
                "--jobs is \(jobs), but \(job?.size ?? 0) processes were started, which divide the runs",
                remedy: "omit it")
        }
        guard let path = output ?? html else {
            guard job == nil, slurmArray == nil else {
                throw UsageError(
                    "\(job == nil ? "--slurm-array" : "a run in several processes") requires an output file, next to which the runs' results are stored",
                    remedy: "add --output or --html")
            }
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
        if slurmArray != nil, !SlurmArray.isTask { return (nil, nil) }
        guard job?.isFirst != false else { return (nil, keep.map { Output.url($0) }) }
        if ConcurrentRuns.index != nil || ConcurrentRuns.isPreparing {
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
