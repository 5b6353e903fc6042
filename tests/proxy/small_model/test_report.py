import io

from predawn.proxy.small_model.report import Report


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_one_line_that_moves():
    out = Terminal()
    report = Report(out)
    report.progress("model", 1, 10)
    report.progress("model", 9, 10)
    report.step("done")

    assert out.getvalue() == "\r  model: 1 of 10 MB\x1b[K\r  model: 9 of 10 MB\x1b[K\ndone\n"


def test_a_log_gets_at_most_a_line_per_quarter():
    out = io.StringIO()
    report = Report(out)
    for size in range(101):
        report.progress("model", size, 100)

    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["0", "25", "50", "75", "100"]


def test_more_than_expected_is_shown_as_all_of_it():
    out = io.StringIO()
    Report(out).progress("model", 12, 10)

    assert out.getvalue() == "  model: 10 of 10 MB\n"
