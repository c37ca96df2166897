import Testing

@testable import Experiments

@Suite struct ChartTests {
    @Test(arguments: [([0.0, 1.0], 0.2), ([23.3, 42.1], 5.0), ([1.19, 2.4], 0.5), ([0.001, 0.0042], 0.001)])
    func ticksAreRoundNumbersThatCoverTheData(_ values: [Double], _ step: Double) throws {
        let scale = Scale.linear(values, ticks: 6, start: 0, end: 100)
        let (first, last) = (try #require(scale.ticks.first), try #require(scale.ticks.last))
        #expect(first <= values[0] && last >= values[1])
        #expect(abs(scale.ticks[1] - first - step) < step * 1e-6)
        #expect((3...9).contains(scale.ticks.count))
    }

    @Test(arguments: [[], [5.0], [5, 5, 5], [0], [.nan, .infinity], [-1e300, 1e300]])
    func degenerateDataHasAScale(_ values: [Double]) {
        for scale in [
            Scale.linear(values, start: 0, end: 100), Scale.linear(values, fromZero: true, start: 0, end: 100),
            Scale.tight(values, start: 0, end: 100), Scale.logarithmic(values, start: 0, end: 100),
        ] {
            #expect(scale.ticks.count <= 120)
            for value in values + [0, 1, .nan] { #expect(scale(value).isFinite) }
        }
    }

    @Test func logarithmicTicksArePowersOfTenOrParts() {
        #expect(
            Scale.logarithmic([7e4, 2.5e8], start: 0, end: 1).ticks.map { $0.rounded() } == [1e5, 1e6, 1e7, 1e8])
        #expect(Scale.logarithmic([1e-4, 4e-4], start: 0, end: 1).ticks.count >= 2)
    }

    @Test func crowdedLabelsMoveApartAndStayInside() {
        let placed = spread([50, 50, 51, 90, 99, 10], gap: 14, within: 0...100)
        let sorted = placed.sorted()
        for (low, high) in zip(sorted, sorted.dropFirst()) { #expect(high - low >= 14 - 1e-9) }
        #expect(sorted.first ?? -1 >= 0 && sorted.last ?? 101 <= 100)
        #expect(placed[3] < placed[4] && placed[0] < placed[2])
        #expect(spread([20, 60], gap: 14, within: 0...100) == [20, 60])
    }

    @Test func labelsBesidePointsDoNotCollide() {
        let points = [(100.0, 100.0), (104, 102), (98, 96), (110, 104), (100, 110)]
        var placement = LabelPlacement(
            frame: Box(x: 0, y: 0, width: 400, height: 300),
            obstacles: points.map { Box(x: $0.0 - 5, y: $0.1 - 5, width: 10, height: 10) })
        let boxes = points.map { placement.place(x: $0.0, y: $0.1, width: 80, height: 15).box }
        for (index, box) in boxes.enumerated() {
            for other in boxes[(index + 1)...] { #expect(box.overlap(other) == 0) }
            #expect(box.x >= 0 && box.x + box.width <= 400)
        }
    }

    @Test func thinningKeepsMeansEndsAndGaps() {
        let points = (0..<1000).map { (x: Double($0), y: Double($0)) }
        let thin = Curves.thinned(points, to: 100)
        #expect(thin.count == 100 && thin[0].x == 0 && thin[99].x == 999)
        #expect(thin[50].y == 504.5)
        var broken = points
        broken[999].y = .nan
        #expect(Curves.thinned(broken, to: 100)[99].y.isNaN)
    }

    @Test func meansCoverOnlyStepsThatEverySeedReached() {
        let mean = Curves.mean([
            [(1, 2), (2, 1)],
            [(1, 4), (2, .nan)],
        ])
        #expect(mean.count == 1 && mean[0].y == 3)
    }

    /// Names in a crowd touch neither each other nor a mark, and those without room are left out.
    @Test func namesThatHaveNoRoomAreLeftOut() {
        let frame = Box(x: 0, y: 0, width: 200, height: 100)
        let mark = Box(x: 97, y: 47, width: 6, height: 6)
        var placement = LabelPlacement(frame: frame, obstacles: [mark])
        let boxes = (0..<60).compactMap { _ in placement.placeFree(x: 100, y: 50, width: 60, height: 14)?.box }
        #expect(boxes.count > 3 && boxes.count < 60)
        for (index, box) in boxes.enumerated() {
            #expect(box.overlap(mark) == 0 && abs(box.overlap(frame) - 60 * 14) < 1e-6)
            #expect(boxes.dropFirst(index + 1).allSatisfy { $0.overlap(box) == 0 })
        }
    }

    /// An outlier leaves the crowd most of the axis, and the order stays.
    @Test func crowdsGetRoom() {
        let values = (0..<50).map { Double($0) / 100 } + [100]
        let scale = CrowdScale(values.shuffled(), start: 0, end: 100)
        let places = values.map(scale.callAsFunction)
        #expect(zip(places, places.dropFirst()).allSatisfy { $0 < $1 })
        #expect(places[0] == 0 && places[50] == 100 && places[49] > 45)
        #expect(CrowdScale([3, 3], start: 0, end: 10)(3) == 5)
    }

    @Test func stylesOfTheUsualRunsDiffer() {
        let methods = ["base", "full", "lora", "dora", "ia3", "promptTuning", "prefixTuning", "bitfit", "vera"]
        let styles = ReportSamples.report(methods.map { MethodRun(method: $0, label: $0) }).styles
        #expect(Set(styles).count == methods.count)
        #expect(Set(styles.map(\.color)).count == methods.count)
    }

    @Test func numbersForReaders() {
        let numbers = NumberFormat.terminal
        #expect(numbers.integer(-1_234_567) == "-1,234,567")
        #expect(numbers.integer(.min) == "-9,223,372,036,854,775,808")
        #expect(numbers.percent(0.0141) == "1.41 %" && numbers.percent(0.00052) == "0.052 %")
        #expect(numbers.percent(1) == "100 %" && numbers.percent(1e-9) == "<0.001 %")
        #expect(
            numbers.bytes(999) == "999 B" && numbers.bytes(14_208_512) == "14.2 MB"
                && numbers.bytes(999_600) == "1.00 MB")
        #expect(numbers.rate(2e-4) == "2e-4" && numbers.rate(0.3) == "0.3" && numbers.rate(1.5e-3) == "1.5e-3")
        #expect(numbers.duration(seconds: 7384) == "2 h 3 min" && numbers.duration(seconds: 125) == "2 min 5 s")
        #expect(numbers.decimal(-0.04, places: 1) == "0.0" && numbers.decimal(.nan, places: 1) == "–")
        #expect(numbers.short(3_538_944) == "3.5 M" && numbers.short(100_000) == "100 K")
    }
}
