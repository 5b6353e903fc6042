"""The local engine: checkpoints of the Llama family and of shared blocks, run with nothing but torch.

`checkpoint.load` reads a folder or a GGUF file; `model.Model` computes logits from it: `prefill` for prompts, `decode`
for one token of up to a batch of sequences. Keys and values live in pages (`kv`) that a scheduler hands out.

One promise shapes the arithmetic: a row of `decode` has the same bits whatever else is in its batch. Requests may then
join and leave a batch without changing each other's answers, and drafts are verified exactly by running them as rows.
"""
