import ArgumentParser

/// Help of the options that name data.
enum DataHelp {
    /// Formats that are read.
    static let formats = ".jsonl, .json, .csv, .tsv, .txt, .parquet, also .gz"

    static let training = ArgumentHelp(
        "Training rows: \(formats), file.json:list, a URL or an SQL query; may be repeated.", valueName: "file")
    static let rows = ArgumentHelp(
        "Rows: \(formats), file.json:list, a URL or an SQL query; may be repeated.", valueName: "file")
    static let prompts = ArgumentHelp(
        "Rows, which need no target: \(formats), file.json:list, a URL or an SQL query; may be repeated.",
        valueName: "file")
}
