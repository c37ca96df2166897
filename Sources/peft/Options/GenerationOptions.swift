import ArgumentParser
import LanguageModels

struct GenerationOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Most tokens to make.", valueName: "tokens"))
    var maxNewTokens = 128
    @Option(help: ArgumentHelp("0 picks the likeliest token; above, tokens are drawn.", valueName: "x"))
    var temperature = 0.0
    @Option(help: ArgumentHelp("Draw among so many of the likeliest tokens; 0 is all.", valueName: "k"))
    var topK = 0
    @Option(help: ArgumentHelp("Draw among the likeliest tokens of this joint probability.", valueName: "p"))
    var topP = 1.0
    @Option(help: ArgumentHelp("Beams of a beam search.", valueName: "n"))
    var beams = 1
    @Option(help: ArgumentHelp("Exponent of the length that a beam's score is divided by.", valueName: "x"))
    var lengthPenalty = 1.0
    @Flag(help: "End a beam search as soon as all beams are complete.")
    var earlyStopping = false

    @Option(help: ArgumentHelp("Least tokens to make.", valueName: "tokens"))
    var minNewTokens = 0
    @Option(help: ArgumentHelp("Length of token sequences that may not come twice; 0 allows all.", valueName: "n"))
    var noRepeatNgram = 0

    func parameters(seed: UInt64) throws -> GenerateParameters {
        let parameters = GenerateParameters(
            maxNewTokens: maxNewTokens, minNewTokens: minNewTokens, temperature: temperature, topK: topK, topP: topP,
            beams: beams,
            lengthPenalty: lengthPenalty, earlyStopping: earlyStopping,
            noRepeatNgram: noRepeatNgram, seed: seed)
        try parameters.validate()
        return parameters
    }
}
