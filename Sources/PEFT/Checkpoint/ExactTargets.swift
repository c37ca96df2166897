import LanguageModels

/// Target names that match exactly a given set of projections.
enum ExactTargets {
    /// The last path components if they match nothing else, otherwise the full paths.
    static func names(of paths: some Collection<String>, in outline: ModelOutline) -> [String] {
        let wanted = Set(paths)
        let leaves = Set(wanted.map { $0.split(separator: ".").last.map(String.init) ?? $0 })
        let all = outline.linears.map(\.path) + outline.embeddings.map(\.path)
        let meant = all.filter { path in leaves.contains { TargetSelection.names($0, path) } }
        return (Set(meant) == wanted ? leaves : wanted).sorted()
    }
}
