/// The post-processors of BERT and RoBERTa, which are templates in other words.
extension PostProcessor {
    /// `[CLS] A [SEP]`, `[CLS] A [SEP] B [SEP]`
    static func bert(cls: Int, sep: Int) -> PostProcessor {
        let first: [Piece] = [.special([cls], type: 0), .text(0, type: 0), .special([sep], type: 0)]
        return PostProcessor(single: first, pair: first + [.text(1, type: 1), .special([sep], type: 1)])
    }

    /// `<s> A </s>`, `<s> A </s> </s> B </s>`; all tokens have type 0.
    static func roberta(cls: Int, sep: Int) -> PostProcessor {
        let first: [Piece] = [.special([cls], type: 0), .text(0, type: 0), .special([sep], type: 0)]
        return PostProcessor(
            single: first,
            pair: first + [.special([sep], type: 0), .text(1, type: 0), .special([sep], type: 0)])
    }

    /// The ids in `"cls": ["[CLS]", 101]` and `"sep": ["[SEP]", 102]`.
    static func tokens(_ fields: StageFields) throws -> (cls: Int, sep: Int) {
        func id(_ key: String) throws -> Int {
            guard let pair = fields.values[key]?.array, pair.count == 2, let id = pair[1].int,
                0...Int(Int32.max) ~= id
            else { throw fields.malformed("\(key) must be a token and its id") }
            return id
        }
        return (try id("cls"), try id("sep"))
    }
}
