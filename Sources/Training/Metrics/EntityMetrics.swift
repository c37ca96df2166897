import PEFTSupport

/// The metrics of ``evaluateEntities(predictions:references:bootstrap:)``, each in 0 … 1; raw values are
/// their keys in reports.
package enum EntityMetric: String, CaseIterable, Sendable, Codable {
    /// F1, precision and recall of entities, which must match in type and boundaries, over the whole dataset.
    case entityF1, entityPrecision, entityRecall
    /// Fraction of words with the correct label; described by ``ClassificationMetric/accuracy``.
    case accuracy

    static let descriptions = [
        MetricDescription(
            key: EntityMetric.entityF1.rawValue, name: "Entity F1",
            explanation: "F1 of entities with the correct type and boundaries, in percent."),
        MetricDescription(
            key: EntityMetric.entityPrecision.rawValue, name: "Precision",
            explanation: "Precision: predicted entities that are correct, in percent."),
        MetricDescription(
            key: EntityMetric.entityRecall.rawValue, name: "Recall",
            explanation: "Recall: reference entities that were found, in percent."),
    ]
}

/// A span of words with one type.
struct Entity: Hashable, Sendable {
    var type: String
    var words: ClosedRange<Int>

    /// The entities in a sequence of labels of the schemes BIO, IOB or BIOES, parsed leniently as by the script of the
    /// CoNLL-2000 shared task (and by seqeval): an I without a preceding B begins an entity as well.
    static func all(in labels: [String]) -> [Entity] {
        var entities: [Entity] = []
        var (previousTag, previousType): (Character, String) = ("O", "")
        var start = 0
        for (index, label) in (labels + ["O"]).enumerated() {
            let tag = label.first ?? "O"
            let type = label.dropFirst().drop { $0 == "-" }.description
            if ends(previousTag, tag, isSameType: previousType == type) {
                entities.append(Entity(type: previousType, words: start...(index - 1)))
            }
            if starts(previousTag, tag, isSameType: previousType == type) { start = index }
            (previousTag, previousType) = (tag, type)
        }
        return entities
    }

    private static func ends(_ previous: Character, _ tag: Character, isSameType: Bool) -> Bool {
        switch previous {
        case "O", ".": false
        case "E", "S": true
        default: ["B", "S", "O"].contains(tag) || !isSameType
        }
    }

    private static func starts(_ previous: Character, _ tag: Character, isSameType: Bool) -> Bool {
        switch tag {
        case "O", ".": false
        case "B", "S": true
        default: ["E", "S", "O"].contains(previous) || !isSameType
        }
    }
}

/// Evaluates predicted word labels against the true ones.
/// - Throws: ``PEFTError`` for lists or label sequences of different length, or an empty list.
package func evaluateEntities(
    predictions: [[String]], references: [[String]], bootstrap: Bootstrap = .standard
) throws -> [String: MetricValue] {
    try checkPairs(predictions: predictions.map { "\($0)" }, references: references.map { ["\($0)"] })
    if let row = predictions.indices.first(where: { predictions[$0].count != references[$0].count }) {
        throw PEFTError(
            "example \(row + 1) has \(predictions[row].count) predicted labels but \(references[row].count) reference labels",
            remedy: "provide one of each per word")
    }
    let counts = zip(predictions, references).map { predicted, right in
        let (own, known) = (Set(Entity.all(in: predicted)), Set(Entity.all(in: right)))
        return (
            hits: own.intersection(known).count, claimed: own.count, actual: known.count,
            words: zip(predicted, right).count { $0 == $1 }, all: right.count
        )
    }
    func share(_ above: ([Int]) -> Int, _ below: ([Int]) -> Int, _ rows: [Int]) -> Double {
        let whole = below(rows)
        return whole > 0 ? Double(above(rows)) / Double(whole) : 0
    }
    func value(_ above: @escaping (Int) -> Int, _ below: @escaping (Int) -> Int) throws -> MetricValue {
        try bootstrap.value(rows: counts.count) { rows in
            share({ $0.reduce(0) { $0 + above($1) } }, { $0.reduce(0) { $0 + below($1) } }, rows)
        }
    }
    return [
        EntityMetric.entityPrecision.rawValue: try value({ counts[$0].hits }, { counts[$0].claimed }),
        EntityMetric.entityRecall.rawValue: try value({ counts[$0].hits }, { counts[$0].actual }),
        EntityMetric.entityF1.rawValue: try value(
            { 2 * counts[$0].hits }, { counts[$0].claimed + counts[$0].actual }),
        EntityMetric.accuracy.rawValue: try value({ counts[$0].words }, { counts[$0].all }),
    ]
}
