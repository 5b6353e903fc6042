"""Which shape to train for a GPU: predicted loss against predicted decode time.

- `law` predicts loss from hidden size, MLP-to-attention ratio and repeats, with published coefficients.
- `search` lists shapes of equal stored size and keeps those that no other beats in both.
- `source` reads the model to plan for; `tables`, `document` and `plot` show the result.

Everything here is predicted. Nothing needs torch, triton or a GPU.
"""
