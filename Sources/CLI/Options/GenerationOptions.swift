import ArgumentParser
import LanguageModels

struct GenerationOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Maximum number of tokens to generate (default: 128). Generation options override the model's generation_config.json.",
            valueName: "tokens"))
    var maxNewTokens: Int?
    @Option(help: ArgumentHelp("Sampling temperature; 0 decodes greedily (default: 0).", valueName: "x"))
    var temperature: Double?
    @Option(
        help: ArgumentHelp(
            "Top-k sampling: sample from the k most likely tokens; 0 disables it (default: 0).", valueName: "k"))
    var topK: Int?
    @Option(
        help: ArgumentHelp(
            "Nucleus sampling: sample from the most likely tokens of this total probability (default: 1).",
            valueName: "p"))
    var topP: Double?
    @Option(
        help: ArgumentHelp(
            "Min-p sampling: minimum probability relative to the most likely token (default: 0).", valueName: "p"))
    var minP: Double?
    @Option(help: ArgumentHelp("Number of beams; 1 disables beam search (default: 1).", valueName: "n"))
    var beams: Int?
    @Option(help: ArgumentHelp("Exponential length penalty of beam search (default: 1).", valueName: "x"))
    var lengthPenalty: Double?
    @Flag(help: "Stop beam search as soon as all beams are complete.")
    var earlyStopping = false

    @Option(help: ArgumentHelp("Minimum number of tokens to generate (default: 0).", valueName: "tokens"))
    var minNewTokens: Int?
    @Option(
        help: ArgumentHelp("Size of n-grams that may occur only once; 0 disables it (default: 0).", valueName: "n"))
    var noRepeatNgram: Int?
    @Option(
        help: ArgumentHelp("Repetition penalty; 1 disables it (default: 1).", valueName: "x"))
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
