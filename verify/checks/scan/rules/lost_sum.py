"""`lost-sum`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="lost-sum",
    title="The block skips and nobody completes the sum",
    why=(
        "The guard skips its reduction in a row in which no later step adds the partial sums up. "
        "Every rank goes on with its own part only. So it is with experts under an all-to-all "
        "backend that gets no dispatcher, where the boundary takes what they leave for complete."
    ),
    repair="Reduce in these rows, or make the later step complete the sum over the same ranks.",
    example=Example(
        wrong="self.mlp = MLP(..., reduce_results=False)  # and nothing after it sums",
        right="self.mlp = MLP(..., reduce_results=True)",
        seen="0.5.10 - 0.5.20 sarvam_moe.py; 0.5.1 - 0.5.3 grok.py with EP",
    ),
)
