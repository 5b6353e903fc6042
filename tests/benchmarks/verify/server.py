"""`predawn`, with the verifiers of `slow.py` among its plugins."""

from predawn.proxy import cli, loading

if __name__ == "__main__":
    loading.BUILT_IN["slow"] = "tests.benchmarks.verify.slow:SlowPlugin"
    cli.main()
