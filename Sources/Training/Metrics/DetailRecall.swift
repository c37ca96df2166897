import PEFTSupport

/// Detail recall: the fraction of the details shared by reference and prompt that the prediction contains, in 0 … 1.
///
/// ROUGE rewards words that all references of a task share ("invites", "because"), so a model that has learned what
/// summaries look like scores well without using its prompt. Detail recall counts only what must come from the
/// prompt. The details of an example are the distinct words of its reference that
/// - occur in the prompt,
/// - are not English function words (``functionWords``), and
/// - occur in at most half of all references, if there are at least ``fewestRows``: a word that most of them share,
///   such as a speaker label, is not specific to an example.
///
/// Words are those of
/// ROUGE: lowercased runs of `a-z0-9`, stemmed if longer than three letters. The metric is recall only, so an output that
/// repeats the whole prompt scores 1; read it together with ROUGE, whose precision penalizes that.
package enum DetailRecall {
    /// Its key in reports.
    package static let key = "detailRecall"

    static let description = MetricDescription(
        key: key, name: "Detail recall", prominence: .always,
        explanation:
            "Names, numbers and content words shared by prompt and target that the output also contains, in percent. "
            + "Words common to most targets do not count."
    ) { texts, bootstrap in
        try texts.prompts.flatMap { prompts in
            try value(
                prompts: prompts, predictions: texts.predictions, references: texts.references, bootstrap: bootstrap)
        }
    }

    /// Minimum number of examples for excluding words that most references share.
    package static let fewestRows = 10

    /// The score of each example against its best reference; `nil` for an example without details.
    /// - Throws: ``PEFTError`` for lists of different length, an empty list or an example without references.
    package static func scores(prompts: [String], predictions: [String], references: [[String]]) throws -> [Double?] {
        try checkPairs(predictions: predictions, references: references)
        guard prompts.count == predictions.count else {
            throw PEFTError(
                "\(prompts.count) prompts but \(predictions.count) predictions",
                remedy: "provide one prompt per prediction")
        }
        var tokenizer = ROUGETokenizer(stemming: true)
        let function = Set(functionWords.flatMap { tokenizer.tokens(of: $0.unicodeScalars) })
        let referenced = references.map { $0.map { Set(tokenizer.tokens(of: $0.unicodeScalars)) } }
        var rowsWith: [Int32: Int] = [:]
        for row in referenced {
            for word in row.reduce(into: Set(), { $0.formUnion($1) }) { rowsWith[word, default: 0] += 1 }
        }
        func isShared(_ word: Int32) -> Bool {
            references.count >= fewestRows && 2 * (rowsWith[word] ?? 0) > references.count
        }
        return predictions.indices.map { row in
            let prompt = Set(tokenizer.tokens(of: prompts[row].unicodeScalars))
            let predicted = Set(tokenizer.tokens(of: predictions[row].unicodeScalars))
            let shares = referenced[row].compactMap { words -> Double? in
                let details = words.intersection(prompt).subtracting(function).filter { !isShared($0) }
                guard !details.isEmpty else { return nil }
                return Double(details.intersection(predicted).count) / Double(details.count)
            }
            return shares.max()
        }
    }

    /// The mean over the examples with details; `nil` if there are none.
    /// - Throws: as ``scores(prompts:predictions:references:)``.
    package static func value(
        prompts: [String], predictions: [String], references: [[String]], bootstrap: Bootstrap = .standard
    ) throws -> MetricValue? {
        let scores = try scores(prompts: prompts, predictions: predictions, references: references)
        guard scores.contains(where: { $0 != nil }) else { return nil }
        let mean = scores.compactMap(\.self).reduce(0, +) / Double(scores.count { $0 != nil })
        return try bootstrap.value(rows: scores.count) { rows in
            let drawn = rows.compactMap { scores[$0] }
            return drawn.isEmpty ? mean : drawn.reduce(0, +) / Double(drawn.count)
        }
    }

    /// English function words, including the parts of contractions.
    static let functionWords = """
        a an the this that these those there here and or but nor so if then than as because since while until though although
        i me my mine you your yours he him his she her hers it its we us our ours they them their theirs who whom whose which
        what when where why how of in on at by to from for with without about into over after before between against during
        out up down off again once am is are was were be been being have has had having do does did doing will would shall
        should can could may might must ought not no yes very too also just only own same other another some any each every
        both all few more most such s t d ll m re ve don didn doesn isn aren wasn weren won wouldn couldn shouldn can hasn
        haven hadn oh let lets
        """.split { $0 == " " || $0 == "\n" }.map(String.init)
}
