import Foundation
import PEFTSupport

/// The projections that a method adapts, with the semantics of Hugging Face's fields.
public struct TargetSelection: Sendable {
    /// Names or dotted suffixes. A single entry may be a regular expression that must match a whole path;
    /// `all-linear` selects every projection except the output layer.
    public var targets: [String]
    /// Names or dotted suffixes of projections to exclude.
    public var excluded: [String]
    /// Whether `excluded` was given as one string, a regular expression.
    package var isExcludedPattern = false
    /// Indices of the layers to adapt; all if `nil`.
    public var layers: [Int]?
    /// Names of the module lists that contain the layers, such as `block`; detected if empty.
    package var layersPattern: [String]
    /// Whether `targets` was given as one string, which Hugging Face reads as a regular expression.
    public var isPattern: Bool
    /// Modules that are trained in full instead.
    public var modulesToSave = ModulesToSave()
    /// Whether a target may match nothing as long as another one matches, as in Hugging Face PEFT.
    package var allowsUnusedTargets = false

    /// - Parameters:
    ///   - targets: names of modules, `all-linear`, or one regular expression.
    ///   - excluded: names of modules that are left out.
    ///   - layers: indices of layers; `nil` for all.
    ///   - layersPattern: names of the module lists that contain the layers.
    ///   - isPattern: whether the only target is a regular expression of whole paths.
    public init(
        targets: [String], excluded: [String] = [], layers: [Int]? = nil, layersPattern: [String] = [],
        isPattern: Bool = false
    ) {
        (self.targets, self.excluded, self.layers) = (targets, excluded, layers)
        (self.layersPattern, self.isPattern) = (layersPattern, isPattern)
    }

    /// The selected projections, in the model's order.
    /// - Throws: ``PEFTError`` if a target matches nothing, with the available names and the nearest match.
    public func sites(in outline: ModelOutline) throws -> [ModelOutline.LinearSite] {
        let paths = Set(try self.paths(in: outline, among: outline.linears.map(\.path)))
        return outline.linears.filter { paths.contains($0.path) }
    }

    /// The selected projections and embeddings, in the model's order; embeddings only if they are named.
    package func sitesAndEmbeddings(in outline: ModelOutline) throws -> (
        linears: [ModelOutline.LinearSite], embeddings: [ModelOutline.EmbeddingSite]
    ) {
        let all = outline.linears.map(\.path) + outline.embeddings.map(\.path)
        let paths = Set(try self.paths(in: outline, among: all))
        let tables = outline.embeddings.filter { targets != ["all-linear"] && paths.contains($0.path) }
        return (outline.linears.filter { paths.contains($0.path) }, tables)
    }

    /// The selected paths among `candidates`.
    /// - Throws: ``PEFTError`` if a target matches nothing, with the available names and the nearest match.
    package func paths(in outline: ModelOutline, among candidates: [String]) throws -> [String] {
        let linears = Set(outline.linears.map(\.path))
        let isEverything = targets == ["all-linear"]
        let regex = try isPattern && !isEverything ? Self.wholeMatch(targets.first ?? "", option: "targets") : nil
        let excludedRegex = try isExcludedPattern ? Self.wholeMatch(excluded.first ?? "", option: "exclude") : nil
        // Modules that every method trains in full need no adapter.
        let left = outline.newModules + [outline.outputLayer]
        let candidates = candidates.filter { !modulesToSave.covers($0) }
        var paths: [String] = []
        var used: Set<String> = []
        for path in candidates {
            if isEverything {
                guard linears.contains(path), !left.contains(where: { path == $0 || path.hasPrefix($0 + ".") })
                else { continue }
            } else if let regex {
                guard try regex.matches(path) else { continue }
            } else {
                let matching = targets.filter { Self.names($0, path) }
                guard !matching.isEmpty else { continue }
                used.formUnion(matching)
            }
            let isExcluded =
                try excludedRegex.map { try $0.matches(path) } ?? excluded.contains { Self.names($0, path) }
            guard !isExcluded else { continue }
            // As in Hugging Face PEFT, a target that is a whole path is in no need of its layer.
            guard targets.contains(path) || isInWantedLayer(path) else { continue }
            paths.append(path)
        }
        let leaves = Self.leaves(candidates.filter { $0 != outline.outputLayer })
        if regex == nil, !isEverything, !allowsUnusedTargets || used.isEmpty,
            let unused = targets.first(where: { !used.contains($0) })
        {
            let hint = nearestName(to: unused.split(separator: ".").last.map(String.init) ?? unused, in: leaves)
            throw PEFTError(
                "the target '\(unused)' matches no projection of this \(outline.family) model",
                remedy: (hint.map { "did you mean '\($0)'? " } ?? "")
                    + "available modules are \(leaves.joined(separator: ", "))")
        }
        guard !paths.isEmpty else {
            throw PEFTError(
                "the targets \(targets.joined(separator: ", ")) select no projection of this \(outline.family) model",
                remedy:
                    "it has \(leaves.joined(separator: ", ")) (\(candidates.count) modules); check --exclude and --layers"
            )
        }
        return paths
    }

    /// The last path components, without duplicates, in the model's order.
    static func leaves(_ paths: [String]) -> [String] {
        var seen: Set<String> = []
        return paths.compactMap { $0.split(separator: ".").last.map(String.init) }.filter { seen.insert($0).inserted }
    }

    static func names(_ target: String, _ path: String) -> Bool { path == target || path.hasSuffix("." + target) }

    private func isInWantedLayer(_ path: String) -> Bool {
        guard let layers, !layers.isEmpty else { return true }
        // As in Hugging Face PEFT: the number after the named list, or else the first number in the path.
        let parts = path.split(separator: ".").map(String.init)
        for (index, part) in parts.enumerated().dropFirst() {
            guard let number = Int(part) else { continue }
            if layersPattern.isEmpty || layersPattern.contains(parts[index - 1]) { return layers.contains(number) }
        }
        return false
    }

    /// A regular expression that must match a whole path.
    static func wholeMatch(_ pattern: String, option: String) throws -> LimitedExpression {
        do { return try LimitedExpression("^(?:\(PythonPattern.translated(pattern)))$") } catch {
            throw PEFTError("'\(pattern)' is not a valid regular expression", remedy: "check --\(option)")
        }
    }

    /// The value of the first pattern in alphabetical order that matches `(.*\.)?(pattern)$`; Hugging Face takes the
    /// first in the file, and its files are sorted.
    static func value(for path: String, in patterns: [String: Double]) throws -> Double? {
        for (pattern, value) in patterns.sorted(by: { $0.key < $1.key }) {
            // Most patterns are plain names, which need no regular expression.
            if pattern.utf8.allSatisfy({ isalnum(Int32($0)) != 0 || $0 == UInt8(ascii: "_") }) {
                if names(pattern, path) { return value }
                continue
            }
            if try wholeMatch("(.*\\.)?(\(pattern))", option: "rank-pattern").matches(path) { return value }
        }
        return nil
    }
}
