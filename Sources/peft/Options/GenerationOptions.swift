import ArgumentParser
import LanguageModels

struct GenerationOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Maximum number of tokens to generate.", valueName: "tokens"))
    var maxNewTokens = 128
    @Option(help: ArgumentHelp("Sampling temperature; 0 is greedy.", valueName: "x"))
    var temperature = 0.0
    @Option(help: ArgumentHelp("Sample from the k most likely tokens; 0 from all.", valueName: "k"))
    var topK = 0
    @Option(help: ArgumentHelp("Sample from the most likely tokens of this total probability.", valueName: "p"))
    var topP = 1.0
    @Option(help: ArgumentHelp("Number of beams; 1 is no beam search.", valueName: "n"))
    var beams = 1
    @Option(help: ArgumentHelp("Exponent of the length in a beam's score.", valueName: "x"))
    var lengthPenalty = 1.0
    @Flag(help: "End a beam search as soon as all beams are complete.")
    var earlyStopping = false

    @Option(help: ArgumentHelp("Minimum number of tokens to generate.", valueName: "tokens"))
    var minNewTokens = 0
    @Option(help: ArgumentHelp("Size of n-grams that may not occur twice; 0 allows all.", valueName: "n"))
    var noRepeatNgram = 0

    func parameters(seed: UInt64) throws -> GenerateParameters {
        let parameters = GenerateParameters(
            maxNewTokens: maxNewTokens, minNewTokens: minNewTokens, temperature: temperature, topK: topK, topP: topP,
            beams: beams,
            lengthPenalty: lengthPenalty, earlyStopping: earlyStopping,
            noRepeatNgram: noRepeatNgram, seed: seed)
        try checkingOptions { try parameters.validate() }
        return parameters
    }
}
