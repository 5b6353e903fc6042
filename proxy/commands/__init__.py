"""The subcommands of `predawn`, one file each: `add_parser(subparsers)` declares it, `run(options)` carries it out."""
