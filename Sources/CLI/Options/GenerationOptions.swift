import ArgumentParser
import LanguageModels

struct GenerationOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Maximum number of tokens to generate (128). This option and the next ones override the model's generation_config.json.",
            valueName: "tokens"))
    var maxNewTokens: Int?
    @Option(help: ArgumentHelp("Sampling temperature; 0 is greedy (0).", valueName: "x"))
    var temperature: Double?
    @Option(help: ArgumentHelp("Sample from the k most likely tokens; 0 from all (0).", valueName: "k"))
    var topK: Int?
    @Option(help: ArgumentHelp("Sample from the most likely tokens of this total probability (1).", valueName: "p"))
    var topP: Double?
    @Option(
        help: ArgumentHelp(
            "Sample from tokens with at least this share of the most likely one's probability (0).", valueName: "p"))
    var minP: Double?
    @Option(help: ArgumentHelp("Number of beams; 1 is no beam search (1).", valueName: "n"))
    var beams: Int?
    @Option(help: ArgumentHelp("Exponent of the length in a beam's score (1).", valueName: "x"))
    var lengthPenalty: Double?
    @Flag(help: "End a beam search as soon as all beams are complete.")
    var earlyStopping = false

    @Option(help: ArgumentHelp("Minimum number of tokens to generate (0).", valueName: "tokens"))
    var minNewTokens: Int?
    @Option(help: ArgumentHelp("Size of n-grams that may not occur twice; 0 allows all (0).", valueName: "n"))
    var noRepeatNgram: Int?
    @Option(
        help: ArgumentHelp("Penalty on the scores of tokens that have occurred; 1 is none (1).", valueName: "x"))
    var repetitionPenalty: Double?

    func parameters(seed: UInt64) throws -> GenerateParameters {
        let parameters = GenerateParameters(
            maxNewTokens: maxNewTokens, minNewTokens: minNewTokens, temperature: temperature, topK: topK, topP: topP,
            minP: minP, beams: beams, lengthPenalty: lengthPenalty, earlyStopping: earlyStopping ? true : nil,
            noRepeatNgram: noRepeatNgram, repetitionPenalty: repetitionPenalty, seed: seed)
        try checkingOptions { try parameters.validate() }
        return parameters
    }
}
