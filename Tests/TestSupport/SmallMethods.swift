/// Options of methods over the small models of the fixtures, whose sizes few default options fit.
package enum SmallMethods {
    /// Values by method and option. The models of the fixtures have more than 90 tokens.
    package static let options = [
        "trainable_tokens": ["trainable-tokens": "2,5,39,80"], "qalora": ["group-size": "4"],
        "miss": ["rank": "4"], "shira": ["rank": "2", "mask-seed": "7"], "c3a": ["block-size": "4"],
        "road": ["group-size": "4"],
        "fourierft": ["frequencies": "30", "scaling": "30"], "waveft": ["frequencies": "30", "scaling": "3"],
        "vblora": ["vector-length": "4", "vectors": "12"],
        "psoft": ["rank": "4"], "alora": ["invocation-tokens": "5"], "kasa": ["rank": "2"],
        "mica": ["rank": "2"],
        "cpt": ["cpt-tokens": "5,17,30,33", "cpt-epsilon": "1000", "cpt-format-epsilon": "1000"],
    ]

    /// Sizes that divide 16 and 18, of which the projections of the mT5 are.
    package static let optionsOnMT5 = [
        "c3a": ["block-size": "2"], "road": ["group-size": "2"],
        "vblora": ["vector-length": "2", "vectors": "12"],
    ]
}
