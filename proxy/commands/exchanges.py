"""placeholder until record lands"""


def add_parser(subparsers):
    pass
