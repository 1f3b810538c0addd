import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--vectors", action="append", default=[], help="DSP48E2 vector file(s) to replay")
