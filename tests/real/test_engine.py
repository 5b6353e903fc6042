"""The local engine on a real model, measured by llama.cpp on the same file."""

import json
import math
import os
import urllib.request

import pytest

pytestmark = pytest.mark.real
torch = pytest.importorskip("torch")

from predawn.kernels.engine import checkpoint  # noqa: E402
from predawn.kernels.engine.model import Model  # noqa: E402
from predawn.proxy.small_model.files import WEIGHTS_NAME, cache_folder  # noqa: E402

TEXTS = [
    "Hello, world!",
    "  leading and   many    blanks \t tabs\n\n\nand lines  ",
    "Numbers: 0 1 12 123 1234567890 3.14159 1,000,000 10^6 ½ ٣",
    "It's we'll I'm they've he'd SHE'S can't WON'T",
    "def f(x):\n    return x**2  # square\n\n\tif x == 3: pass\n",
    "Größe, naïve café, Ελληνικά, русский текст, 日本語のテキスト, 한국어, العربية, हिन्दी",
    "emoji 🌒🌓🌔 👩‍👩‍👧 and \u200b zero width, nbsp\u00a0here, line\u2028sep",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><repo_name>x<file_sep>",
    "https://example.com/a?b=c&d=%20#frag user@host.tld C:\\path\\file",
    "....!!!???---___///\\\\\\ (((nested [brackets {here}])))",
    "a\r\nb\rc\x0bd",
    "",
]
QUESTIONS = [
    "What is the capital of France?", "Name three colours.", "What is 2 + 2?", "Who wrote Hamlet?",
    "Translate 'good morning' to Spanish.", "What do bees make?", "Is the sun a star?", "How many legs has a spider?",
    "Write one sentence about the moon.", "What is the opposite of hot?", "Give me a synonym of happy.",
    "What is the largest ocean?", "How do I boil an egg?", "What is photosynthesis?", "Say hello in French.",
    "Which animal barks?", "What day comes after Monday?", "List two fruits.", "What is water made of?", "Tell me a joke.",
]  # fmt: skip
PROSE = (
    "The Moon is the only natural satellite of the Earth. It goes around the planet once in about twenty-seven days, and "
    "it always shows us the same side. People have looked at it for thousands of years, and many cultures have made "
    "calendars from its phases. In 1969, two astronauts walked on its surface for the first time. They collected rocks, "
    "took photographs, and planted a flag before they returned home. Scientists believe that the Moon was formed when a "
    "large body struck the young Earth, and that the pieces that were thrown into space came together over time."
)


@pytest.fixture(scope="module")
def engine(model):
    """Our model of the file that the server has; `model` made sure that it is there."""
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    loaded = checkpoint.load(cache_folder() / WEIGHTS_NAME, dtype=torch.float32)
    return loaded, Model(loaded.config, loaded.weights)


def ask(model, path, **body):
    url = model.base_url.removesuffix("/v1") + path
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def next_logprobs(model, tokens, count):
    """What the server expects after these tokens: its best ones, with their log-probabilities."""
    answer = ask(model, "/completion", prompt=tokens, n_predict=1, n_probs=count, temperature=0, cache_prompt=True)
    return {one["id"]: one["logprob"] for one in answer["completion_probabilities"][0]["top_logprobs"]}


def logprobs(engine, tokens):
    """Ours, after each token."""
    _, model = engine
    pages = torch.arange(-(-len(tokens) // 16), dtype=torch.int32)
    return model.prefill(torch.tensor(tokens), 0, pages, model.new_kv(len(pages)), want="all").log_softmax(-1)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("special", [True, False])
def test_texts_give_the_tokens_that_llama_cpp_gives(engine, model, text, special):
    expected = ask(model, "/tokenize", content=text, parse_special=special, add_special=False)["tokens"]
    tokenizer = engine[0].tokenizer

    assert tokenizer.encode(text, special=special) == expected
    if not special:
        assert tokenizer.decode(expected) == text


def test_the_template_of_the_file_is_followed(engine):
    text = engine[0].chat.render([{"role": "user", "content": "Hi"}])

    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_first_tokens_have_the_log_probabilities_of_llama_cpp(engine, model, record_property):
    loaded, _ = engine
    best, others = [], []
    for question in QUESTIONS:
        prompt = loaded.chat.render([{"role": "user", "content": question}])
        tokens = loaded.tokenizer.encode(prompt, special=True)
        theirs, ours = next_logprobs(model, tokens, 10), logprobs(engine, tokens)[-1]
        apart = [abs(float(ours[token]) - value) for token, value in theirs.items()]
        best.append(apart[0])
        others += apart[1:]
    words = f"best token: worst {max(best):.3f}, mean {sum(best) / len(best):.3f}; next nine: worst {max(others):.3f}"
    record_property("log-probabilities apart", words)
    print(words)

    assert max(best) < 0.2, words


def test_perplexity_is_that_of_llama_cpp(engine, model, record_property):
    tokens = engine[0].tokenizer.encode(PROSE, special=False)
    ours = logprobs(engine, tokens)
    scored = range(8, len(tokens))  # before, a word may be so unlikely that the server does not list it
    mine = [float(ours[at - 1, tokens[at]]) for at in scored]
    theirs = [next_logprobs(model, tokens[:at], 5_000)[tokens[at]] for at in scored]
    expected, actual = (math.exp(-sum(values) / len(values)) for values in (theirs, mine))
    words = f"perplexity over {len(mine)} tokens: {actual:.3f}, llama.cpp {expected:.3f}"
    record_property("perplexity", words)
    print(words)

    assert abs(actual / expected - 1) < 0.02, words


def test_greedy_answers_come_token_by_token(engine):
    loaded, model = engine
    tokens = loaded.tokenizer.encode(loaded.chat.render([{"role": "user", "content": QUESTIONS[0]}]), special=True)
    kv, pages = model.new_kv(8), torch.arange(8, dtype=torch.int32)
    logits, said = model.prefill(torch.tensor(tokens), 0, pages, kv), []
    while (token := int(logits.argmax())) not in loaded.tokenizer.eos_ids and len(said) < 20:
        said.append(token)
        at = torch.tensor([len(tokens) + len(said) - 1])
        logits = model.decode(torch.tensor([token]), at, pages[None], kv)

    assert loaded.tokenizer.decode(said) == "The capital of France is Paris."
