/// A run and its place in the report, which identifies it: labels and figures of two runs may be equal.
@dynamicMemberLookup
struct ReportedRun: Identifiable, Sendable {
    /// Index in ``ComparisonReport/runs``, by which JSON refers to a run as well (``Difference/to``, ``MethodRun/source``).
    let id: Int
    let run: MethodRun

    subscript<Value>(dynamicMember path: KeyPath<MethodRun, Value>) -> Value { run[keyPath: path] }

    /// The metric's statistic, if it has a finite mean.
    func statistic(_ metric: Metric) -> Statistic? { run.statistic(metric) }
}

extension ComparisonReport {
    /// All runs with their identities.
    var reportedRuns: [ReportedRun] { runs.enumerated().map { ReportedRun(id: $0, run: $1) } }

    /// The run whose model this run's is, merged and quantized; `nil` if it trained its own, or if a file names a run that it
    /// doesn't have.
    func source(of run: ReportedRun) -> ReportedRun? {
        guard let source = run.source, runs.indices.contains(source) else { return nil }
        return ReportedRun(id: source, run: runs[source])
    }
}
