/// A column of a comparison's results, declared once (``ComparisonReport/columns``) for the terminal's table and the page's.
///
/// JSON has no columns: it has the fields of ``MethodRun`` that columns read, under their own names.
struct ReportColumn {
    let content: Content
    /// How the terminal shows it; `nil` for a column of the page alone.
    let terminal: Terminal?
    /// How the page shows it; `nil` for a column of the terminal alone.
    let page: Page?

    enum Content {
        /// A metric with its interval, the best value marked. Model-free baselines have it as well.
        case quality(Metric)
        /// One value per run, written in both.
        case number(Number)
        /// A difference of each run by a metric, with its interval.
        case difference(Metric, (ReportedRun) -> DifferenceCell)
    }

    struct Number {
        let value: (ReportedRun) -> Double?
        let write: (NumberFormat, Double) -> String
        /// Why a run has no value, which the page tells.
        let reason: (ReportedRun) -> String
    }

    enum DifferenceCell {
        case difference(Difference)
        /// Neither resamples nor seeds give an interval.
        case unknown
        /// The run itself is what others are compared with: the terminal's text, the page's reason for a dash, and the value by
        /// which the page sorts it.
        case reference(terminal: String, page: String, value: Double?)
    }

    struct Terminal {
        /// One line or two.
        let title: [String]
        /// Where there is little room, the least important columns are left out; those from 100 on never.
        let importance: Int
        /// Where the terminal writes something else than the page.
        let write: ((NumberFormat, ReportedRun) -> String?)?

        init(_ title: String..., importance: Int, write: ((NumberFormat, ReportedRun) -> String?)? = nil) {
            (self.title, self.importance, self.write) = (title, importance, write)
        }
    }

    struct Page {
        /// Groups of columns, in the page's order: decisive ones first; those that only document the run last.
        enum Section: CaseIterable { case leadingQuality, storage, distance, cost, otherQuality, training }

        let section: Section
        /// Text after a newline is set smaller beneath.
        let title: String
        let unit: String
        /// Whether large values are what a reader looks for first.
        let falling: Bool
        /// Of the glossary.
        let explanation: String

        init(_ section: Section, _ title: String, unit: String = "", falling: Bool = false, explanation: String) {
            (self.section, self.title, self.unit) = (section, title, unit)
            (self.falling, self.explanation) = (falling, explanation)
        }
    }
}
