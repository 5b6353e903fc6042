"""What becomes of a server after a long time of ordinary trouble: clients that hang up, an upstream that fails.

`run` is the command. `clients` ask at half of what the set-up sustains, and hang up on one answer in a hundred; the upstream is
`predawn upstream scripted`, told to fail one request in a hundred. `ledger` reads what the server wrote down, `probe_plugin`
counts its tasks from inside. Afterwards nothing may be left over: no connection, no task, no memory, no difference in the books.
"""
