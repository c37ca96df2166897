/// Maps pieces of text to ids of its vocabulary.
///
/// To add a model, add a file with a type that conforms to this protocol and a line in ``ModelFile``.
protocol TokenizerModel: Sendable {
    /// The number of ids, which start at 0.
    var vocabularySize: Int { get }
    /// The id of the unknown token.
    var unknownID: Int? { get }
    /// Appends the ids of all pieces of `text`.
    func tokenize(_ text: PreTokenizedText, into ids: inout [Int])
    /// The ids of one piece, each with its byte range.
    func place(_ piece: [UInt8]) -> [(id: Int, bytes: Range<Int>)]
    func piece(for id: Int) -> String?
    func id(for piece: String) -> Int?
}
