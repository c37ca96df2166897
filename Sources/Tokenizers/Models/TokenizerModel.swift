/// Turns pieces of text into ids of its vocabulary.
///
/// A new kind of model is one file with a type of this protocol, and one line in ``ModelFile``.
protocol TokenizerModel: Sendable {
    /// The number of ids, which are 0 up to this.
    var vocabularySize: Int { get }
    /// The id of what is in no piece.
    var unknownID: Int? { get }
    /// Appends the ids of all pieces of `text`.
    func tokenize(_ text: PreTokenizedText, into ids: inout [Int])
    /// The ids of one piece, each with the bytes of it that it stands for.
    func place(_ piece: [UInt8]) -> [(id: Int, bytes: Range<Int>)]
    func piece(for id: Int) -> String?
    func id(for piece: String) -> Int?
}
