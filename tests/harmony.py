"""The part of the o200k harmony vocabulary that the Lens template uses, as a tokenizer of the real kind.

Byte-level BPE with the real pattern, ids and special markers, without the other 200,000 tokens: what else is typed
falls apart into bytes. Digits are whole in groups of up to three, as in the real vocabulary.
"""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

MARKERS = {
    "<|start|>": 200006,
    "<|end|>": 200007,
    "<|message|>": 200008,
    "<|channel|>": 200005,
    "<|return|>": 200002,
    "<|endoftext|>": 199999,
}
TOKENS = {
    "system": 17360, "You": 3575, " are": 553, " Chat": 17554, "GPT": 162016, ",": 11, " a": 261, " large": 4410,
    " language": 6439, " model": 2359, " trained": 22203, " by": 656, " Open": 7788, "AI": 17527, ".\n": 558,
    "Knowledge": 87447, " cutoff": 100594, ":": 25, " ": 220, "202": 1323, "4": 19, "-": 12, "06": 3218, "\n": 198,
    "Current": 6576, " date": 3521, "6": 21, "05": 2922, "23": 1860, "\n\n": 279, "Reason": 30377, "ing": 289,
    " medium": 14093, "#": 2, " Valid": 13888, " channels": 18403, " analysis": 8450, " commentary": 49159,
    " final": 1721, ".": 13, " Channel": 21030, " must": 2804, " be": 413, " included": 7360, " for": 395,
    " every": 1753, " message": 3176, "developer": 77944, " Instructions": 68406, "Describe": 61443, " the": 290,
    " image": 3621, " detailing": 69091, " color": 3089, " shape": 9591, " size": 2349, " texture": 17788,
    " quantity": 17245, " text": 2201, " spatial": 44273, " relationships": 14321, " of": 328, " objects": 11736,
    " and": 326, " background": 6357, ".\n\n": 364, "user": 1428, "assistant": 173781, "analysis": 35644, "Need": 23483,
    " to": 316, " generate": 10419, " one": 1001, " according": 7065, " description": 6496, "final": 17196,
}  # fmt: skip
MERGES = ("R e", "Re a", "Rea s", "Reas o", "Reaso n", "i n", "in g")
"""The one word of the template that is two tokens: Reason, ing."""

WORD = r"[^\r\n\p{L}\p{N}]?"
UPPER, LOWER, ENDING = (
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
)
PATTERN = "|".join(
    [
        WORD + UPPER + "*" + LOWER + "+" + ENDING,
        WORD + UPPER + "+" + LOWER + "*" + ENDING,
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


def harmony_tokenizer() -> PreTrainedTokenizerFast:
    bytes_as_text = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocabulary = {bytes_as_text.pre_tokenize_str(token)[0][0]: i for token, i in TOKENS.items()} | MARKERS
    others = [
        *pre_tokenizers.ByteLevel.alphabet(),
        *(merge.replace(" ", "") for merge in MERGES),
        *(f"{number:0{width}}" for width in (1, 2, 3) for number in range(10**width)),
    ]
    for token in sorted(set(others) - set(vocabulary)):
        vocabulary[token] = 300_000 + len(vocabulary)
    merges = [tuple(merge.split()) for merge in MERGES]
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"), bytes_as_text]
    )
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|endoftext|>", eos_token="<|return|>", padding_side="right"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)})
    return tokenizer
