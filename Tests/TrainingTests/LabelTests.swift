import Foundation
import LanguageModels
import PEFTSupport
import Testing

@testable import Training

/// Labels of rows and those of a model.
@Suite struct LabelTests {
    private func number(_ label: String, _ labels: [String]) -> Int? { LabelNumbers(labels)[label] }

    @Test func integersSortByValue() {
        #expect(LabelNumbers.sorted(["10", "2", "0", "1"]) == ["0", "1", "2", "10"])
        #expect(LabelNumbers.sorted(["10", "-1", "2"]) == ["-1", "2", "10"])
        #expect(LabelNumbers.sorted(["10", "2", "x"]) == ["10", "2", "x"])
        #expect(LabelNumbers.sorted(["1", "01"]) == ["01", "1"])
    }

    @Test func numbersStandForNames() {
        let names = ["sad", "glad", "other"]
        #expect(names.map { number($0, names) } == [0, 1, 2])
        #expect(number("1", names) == 1)
        #expect(number("3", names) == nil && number("-1", names) == nil)
        #expect(LabelNumbers(names).canonical("1") == "glad")
        #expect(LabelNumbers(names).canonical("joy") == "joy")
        // A class that is called so is meant.
        #expect(number("1", ["1", "2"]) == 0)
        #expect(number("0", ["1", "2"]) == nil)
        #expect(number("1", ["LABEL_0", "LABEL_1"]) == 1)
    }

    @Test func unknownLabelsNameTheClasses() {
        let row = Row.Location(file: "a.csv", number: 2)
        let error = message { _ = try LabelNumbers(["sad", "glad"]).number(of: "5", in: row) }
        #expect(
            error
                == "a.csv line 2: '5' is not one of the 2 classes (sad, glad); classes may be named or numbered 0 to 1"
        )
        let near = message { _ = try LabelNumbers(["sad", "glad"]).number(of: "gald", in: row) }
        #expect(near.hasSuffix("did you mean 'glad'?"))
    }

    @Test func noLabelsAreAnAnswerOfManyLabelsAlone() throws {
        #expect(MultiLabelTask.labels("") == [])
        #expect(MultiLabelTask.labels(" \n") == [])
        #expect(MultiLabelTask.labels("a\n b\n") == ["a", "b"])
        let rows = try read("a.jsonl", #"{"t": "x", "l": []}"# + "\n" + #"{"t": "y", "l": ""}"#)
        let examples = try RowTemplates(prompt: Template("{t}"), target: Template("{l}")).examples(from: rows)
        #expect(examples.map(\.target) == ["", ""])
        let metrics = try MultiLabelTask(labels: ["a", "b"]).metrics(
            [.labels([], probabilities: []), .labels(["a"], probabilities: [1])], of: examples)
        #expect(metrics["accuracy"]?.value == 0.5)
    }

    /// A label that the model doesn't have is missed, not forgotten.
    @Test func unknownLabelsCountAsWrong() throws {
        func example(_ target: String) -> Example {
            Example(prompt: "", target: target, row: .init(file: "", number: 1))
        }
        let task = MultiLabelTask(labels: ["a", "b"])
        let metrics = try task.metrics(
            [.labels(["a"], probabilities: [1]), .labels(["b"], probabilities: [1])],
            of: [example("a\nc"), example("b")])
        #expect(metrics["accuracy"]?.value == 0.5)
        #expect(abs((metrics["microF1"]?.value ?? 0) - 0.8) < 1e-9)
        #expect(abs((metrics["macroF1"]?.value ?? 0) - 2.0 / 3) < 1e-9)
        #expect(task.unknownLabels(of: example("a\nc\n1")) == ["c"])
        let classes = ClassificationTask(labels: ["a", "b"])
        let right = try classes.metrics(
            [.label("a", probability: 1), .label("b", probability: 1)], of: [example("0"), example("c")])
        #expect(right["accuracy"]?.value == 0.5)
    }

    @Test func meaningsOfNumbers() {
        let examples = ["1", "0", "1"].map { Example(prompt: "", target: $0, row: .init(file: "", number: 1)) }
        let head = ModelHead(task: .classification, labels: ["sad", "glad"])
        #expect(head.classIndexMeaning(in: examples) == "0 is 'sad', 1 is 'glad'")
        #expect(ModelHead(task: .classification, labels: ["0", "1"]).classIndexMeaning(in: examples) == nil)
        #expect(
            ModelHead(task: .classification, labels: ["LABEL_0", "LABEL_1"]).classIndexMeaning(in: examples) == nil)
        #expect(ModelHead(task: .regression).classIndexMeaning(in: examples) == nil)
    }
}
