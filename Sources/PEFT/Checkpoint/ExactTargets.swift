import LanguageModels

/// Names of targets that mean exactly some projections.
enum ExactTargets {
    /// The last parts of their paths where those name nothing else, and the whole paths otherwise.
    static func names(of paths: some Collection<String>, in outline: ModelOutline) -> [String] {
        let wanted = Set(paths)
        let leaves = Set(wanted.map { $0.split(separator: ".").last.map(String.init) ?? $0 })
        let all = outline.linears.map(\.path) + outline.embeddings.map(\.path)
        let meant = all.filter { path in leaves.contains { TargetSelection.names($0, path) } }
        return (Set(meant) == wanted ? leaves : wanted).sorted()
    }
}
