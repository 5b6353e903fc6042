import aiohttp

from predawn.plugins.testing import predawn_server

ODD = {
    "upstreams": [{"name": "<script>", "kind": "scripted"}],
    "models": [{"name": "a&b", "upstream": "<script>"}],
    "plugins": ["record"],
}


async def test_the_page_shows_what_the_settings_name_and_nothing_of_it_is_markup():
    async with predawn_server(ODD) as running, aiohttp.ClientSession() as session:
        async with session.get(f"{running.admin_url}/status") as reply:
            page = await reply.text()

    assert (reply.status, reply.content_type) == (200, "text/html")
    assert "<td>a&amp;b<td>&lt;script&gt;" in page
    assert "<td>&lt;script&gt;<td>scripted<td>0<td>breaker closed" in page
    assert "<td>record" in page
    assert "<script>" not in page
