/// The program's version, shown by `peft --version` and in reports.
public enum Version {
    public static let current = "0.1.0"
}
