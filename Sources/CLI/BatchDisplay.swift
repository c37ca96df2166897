import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Training

/// `--show-batch`: the first batch, with the tokens that contribute to the loss marked.
struct BatchDisplay {
    let tokenizer: Tokenizer
    let architecture: Architecture
    let head: ModelHead?
    let showsIDs: Bool
    var usesColor = Console.usesColor

    func show(_ plan: BatchPlan, _ rows: EncodedRows) {
        var plan = plan
        let microBatches = plan.microBatches(ofStep: 0)
        for (index, microBatch) in microBatches.enumerated() {
            let rows = microBatch.map { rows[$0] }
            let title =
                microBatches.count > 1
                ? "Micro-batch \(index + 1) of \(microBatches.count) of the first step" : "First batch"
            let tokens = rows.reduce(0) { $0 + (head != nil ? $1.input.count : $1.length) }
            let loss = rows.reduce(0) { $0 + $1.lossCount }
            print(
                bold("\(title): \(count(rows.count, "example")), \(count(tokens, "token")), ")
                    + bold(head != nil ? "no padding" : "\(Console.grouped(loss)) with loss, no padding")
            )
            for (index, row) in zip(microBatch, rows) { show(row, Self.name(of: row, index: index)) }
            print("")
        }
        guard head == nil else { return }
        print(
            usesColor
                ? "\(colored("Green")) tokens contribute to the loss; ↵ marks a line break among them."
                : "Tokens in ⟦ ⟧ contribute to the loss; ↵ marks a line break among them.")
    }

    /// The position of an example in its file, such as `line 12`.
    static func name(of row: EncodedExample, index: Int) -> String {
        row.location.map { "\($0.unit.rawValue) \($0.number)" } ?? "example \(index + 1)"
    }

    private func show(_ row: EncodedExample, _ name: String) {
        let percentage = row.lossCount * 100 / max(1, row.length)
        if let head {
            let names = row.target.filter { $0 >= 0 }.map {
                head.labels.indices.contains($0) ? head.labels[$0] : "\($0)"
            }
            let target = row.row.score.map { "score \($0)" } ?? "labels \(names.joined(separator: ", "))"
            print(bold(name) + ": \(count(row.input.count, "token")), \(target)")
            write(row.input, row.input.map { _ in false })
            for text in row.row.candidates {
                print("  second text")
                write(text, text.map { _ in false })
            }
            return
        }
        switch architecture {
        case .decoder:
            print(bold(name) + ": \(count(row.length, "token")), \(row.lossCount) with loss (\(percentage) %)")
            let mask = row.input.map { _ in false } + (row.loss ?? row.target.map { _ in true })
            write(row.input + row.target, mask)
        case .encoderDecoder:
            print(bold(name) + ": input of \(count(row.input.count, "token"))")
            write(row.input, row.input.map { _ in false })
            print("  target of \(count(row.target.count, "token")), all with loss")
            write(row.target, row.target.map { _ in true })
        case .encoder: break
        }
    }

    /// Prints the text of tokens, with those that contribute to the loss marked, and their ids with `--show-ids`.
    private func write(_ ids: [Int], _ mask: [Bool]) {
        var text = ""
        var numbers: [String] = []
        for run in runs(ids, mask) {
            text += run.hasLoss ? marked(run.text.replacingOccurrences(of: "\n", with: "↵\n")) : run.text
            let list = run.ids.map(String.init).joined(separator: " ")
            numbers.append(run.hasLoss ? marked(list) : list)
        }
        print(indented(text))
        if showsIDs { print(indented("ids: " + numbers.joined(separator: " "))) }
    }

    /// A run of tokens with the same loss mask.
    struct Run {
        var text: String
        var ids: [Int]
        var hasLoss: Bool
    }

    func runs(_ ids: [Int], _ mask: [Bool]) -> [Run] {
        var result: [Run] = []
        var start = 0
        // Decode from the start: the first token of a text loses its leading space.
        var before = ""
        while start < ids.count {
            let end = mask[start...].firstIndex { $0 != mask[start] } ?? ids.count
            let decoded = tokenizer.decode(tokens: Array(ids[..<end]), skipSpecialTokens: false)
            let part =
                decoded.utf8.starts(with: before.utf8)
                ? String(decoding: decoded.utf8.dropFirst(before.utf8.count), as: UTF8.self)
                : tokenizer.decode(tokens: Array(ids[start..<end]), skipSpecialTokens: false)
            result.append(Run(text: part, ids: Array(ids[start..<end]), hasLoss: mask[start]))
            (before, start) = (decoded, end)
        }
        return result
    }

    private func indented(_ text: String) -> String {
        text.split(separator: "\n", omittingEmptySubsequences: false).map { "    " + $0 }.joined(separator: "\n")
    }

    /// Sets the color on every line, so that pagers keep it.
    private func marked(_ text: String) -> String {
        guard usesColor else { return "⟦\(text)⟧" }
        return text.split(separator: "\n", omittingEmptySubsequences: false).map {
            $0.isEmpty ? "" : colored(String($0))
        }
        .joined(separator: "\n")
    }

    private func colored(_ text: String) -> String { "\u{1B}[1;32m\(text)\u{1B}[0m" }
    private func bold(_ text: String) -> String { usesColor ? "\u{1B}[1m\(text)\u{1B}[0m" : text }
    private func count(_ number: Int, _ thing: String) -> String {
        "\(Console.grouped(number)) \(thing)\(number == 1 ? "" : "s")"
    }
}
