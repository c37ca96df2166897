/// The post-processors of BERT and RoBERTa, which are templates in other words.
enum PairProcessing {
    /// `[CLS] A [SEP]`, `[CLS] A [SEP] B [SEP]`
    static func bert(cls: Int, sep: Int) -> TemplateProcessing {
        TemplateProcessing(
            single: [.special([cls]), .text(0), .special([sep])],
            pair: [.special([cls]), .text(0), .special([sep]), .text(1), .special([sep])])
    }

    /// `<s> A </s>`, `<s> A </s> </s> B </s>`
    static func roberta(cls: Int, sep: Int) -> TemplateProcessing {
        TemplateProcessing(
            single: [.special([cls]), .text(0), .special([sep])],
            pair: [.special([cls]), .text(0), .special([sep]), .special([sep]), .text(1), .special([sep])])
    }

    static func read(
        _ fields: StageFields, _ make: (_ cls: Int, _ sep: Int) -> TemplateProcessing
    ) throws -> TemplateProcessing {
        /// The id in `["[CLS]", 101]`.
        func id(_ key: String) throws -> Int {
            guard let pair = fields.values[key]?.array, pair.count == 2, let id = pair[1].int,
                0...Int(Int32.max) ~= id
            else { throw fields.malformed("\(key) must be a token and its id") }
            return id
        }
        return make(try id("cls"), try id("sep"))
    }
}

/// Changes nothing: byte-level tokenizers name a post-processor that only moves offsets.
struct Unprocessed: PostProcessor {
    func process(_ parts: [[Int]], addSpecialTokens: Bool) -> [[Int]] { parts }
}
