"""What sleep is worth, on the bundled model and on any endpoint; that nothing is lost or paid twice when it is killed.

- `stories` and `problems` make the contexts and questions (`cases`); `grading` tells right from wrong.
- `asking` puts them to a server (`site`) in several ways and keeps every answer (`journal`), so that a run can go on.
- `bundled` and `endpoint` say what is asked of whom and promised; `results` and `curves` are the arithmetic.
- `crash` kills the server again and again, before an upstream of its own (`clerk`); `preemption` asks while it sleeps.
- `matching` is what finding a context costs each request; `run` runs all of it, `picture` draws it.
"""
