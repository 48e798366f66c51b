"""What the tests of the compiled kernel found, as a table after all tests, whichever process ran them."""


def pytest_terminal_summary(terminalreporter) -> None:
    reports = [r for found in terminalreporter.stats.values() for r in found if getattr(r, "when", "") == "call"]
    rows = [tuple(value) for r in reports for name, value in r.user_properties if name == "compiled kernel"]
    if not rows:
        return
    terminalreporter.section("the AdamW kernel, compiled: bytes of spills, loads and stores of 128 bits")
    line = "{:6} {:20} {:10} {:>9} {:>6} {:>5} {:>6}"
    terminalreporter.write_line(line.format("GPU", "dtypes", "flags", "registers", "spills", "loads", "stores"))
    for architecture, *row in sorted(rows, key=lambda r: (r[2] != "plain", r[2], r[1], r[0])):
        terminalreporter.write_line(line.format(f"sm_{architecture}", *row))
