import ArgumentParser

/// Help of the options that name datasets.
enum DataHelp {
    /// Supported formats.
    static let formats = ".jsonl, .json, .csv, .tsv, .txt or .parquet (also .gz)"

    static let training = ArgumentHelp(
        "Training data: \(formats), file.json:list, a URL or an SQL query. Repeatable.", valueName: "file")
    static let rows = ArgumentHelp(
        "Evaluation data: \(formats), file.json:list, a URL or an SQL query. Repeatable.", valueName: "file")
    static let prompts = ArgumentHelp(
        "Input data, targets not required: \(formats), file.json:list, a URL or an SQL query. Repeatable.",
        valueName: "file")
}
