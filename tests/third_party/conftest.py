collect_ignore = ["shout"]  # its tests need it installed; `test_shout.py` runs them in a process of their own
