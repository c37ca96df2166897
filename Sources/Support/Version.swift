/// The program's version, as `peft --version` and reports say it.
public enum Version {
    public static let current = "0.1.0"
}
