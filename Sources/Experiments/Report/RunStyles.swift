extension ComparisonReport {
    /// How each run looks: gray is the base model, blue full fine-tuning, orange the first adapter.
    var styles: [SeriesStyle] {
        var adapters = 0
        return runs.map { run in
            if run.isBase { return Palette.gray }
            if run.isFull { return Palette.blue }
            defer { adapters += 1 }
            return Palette.series(adapters)
        }
    }
}
