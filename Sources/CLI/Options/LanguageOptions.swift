import ArgumentParser
import Training

/// The languages of a model that translates between several.
struct LanguageOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Language of the prompts, such as eng_Latn (NLLB), en_XX (mBART) or en (M2M-100), or a {field} of the data (default: the tokenizer's).",
            valueName: "language"))
    var sourceLanguage: String?

    @Option(
        help: ArgumentHelp(
            "Language of the targets and the generated texts, or a {field} of the data (default: the tokenizer's).",
            valueName: "language"))
    var targetLanguage: String?

    func apply(to settings: inout DataSettings) {
        if let sourceLanguage { settings.sourceLanguage = sourceLanguage }
        if let targetLanguage { settings.targetLanguage = targetLanguage }
    }
}
