"""`predawn-tiny`: the small model that comes with Predawn, and everything that made it.

It knows one world: short stories of who has how many of something (`world`), told, asked about, noted down and worked
out in a fixed plain language (`language`). `lessons` turns stories into conversations to learn from, `train` learns,
`evaluate` tells how well. The model is there so that spending compute wisely can be seen to matter on any machine:
it is right more often when it works step by step, when it samples and votes, and when notes were written beforehand.
"""
