"""The fast lane: requests that no plugin touches, relayed from one socket's read callback to the other's.

- `Door`: one client connection. It takes the plainest of requests and hands everything else, bytes and all, to the full
  lane, which is aiohttp's; so nothing is refused here, and what is unusual behaves as it always did.
- `Heads`: request heads that were seen before and need not be read again.
- `Lane`: which models may take it, and what is known of each beforehand; one for each version of the settings.
- `Transit`: one request on its way. An upstream that fails before its first byte is the full lane's business again:
  retries and fallbacks are written once.
"""
