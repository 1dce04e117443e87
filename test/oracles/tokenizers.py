"""Ids and texts by Rust `tokenizers`, for test/fixtures/text/oracle.json: real tokenizers, and made ones that each show one component.

    pip install "tokenizers==0.23.*"
    python test/oracles/tokenizers.py > test/fixtures/text/oracle.json
"""

import json
import random
import sys
from pathlib import Path

sys.path.pop(0)  # this folder, whose file of the same name would hide the package
import tokenizers  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "text"
RANDOM = random.Random(20261125)

TEXTS = [
    "", " ", "  ", "   a", "a b", " a  b ", "a\nb", "\n\n a\n", "a\r\n\tb", "Hello, World! It's we'll 'S don't",
    "Add ½ cup of ² or ① or Ⅷ", "٣٤٥ १२३ 1234567 3.14", "a\u0085b \u0085 c", "\ufeffa b\ufeff c \ufeff", "a\u00a0b\u3000c\u2028d\u200be",
    "café cafe\u0301 ñandú Zoë", "ΑΣ ΣΑΣ ὈΔΥΣΣΕΎΣ İstanbul ẞ", "👩‍👩‍👧‍👦 🇨🇭🏳️‍🌈 👍🏽", "日本語、中文。한국어", "ไทย हिन्दी العربية",
    "x=1;y+=2//z_1 __a__ a-b--c", "<|im_start|>user\nhi<|im_end|>", "<s>b", " <s>  b", "a<s> b", "[INST] x<s>[/INST]", "</s></s>", "<unk>",
    "<0x0A> <0xE2><0x82><0xAC>", "▁a ▁▁b▁", "a▁ b", "\x00\x01\x7f\x1f\x1e", "\ud7ff\ue000\ufffd\U0010ffff", "the-final--countdown", "-", "--a-",
    "naïve 𝒳𝒴 ﬁ Å Ω", "$1 $& $$ 100%", "if(a){b}", "AbCdEf GHi", "ﷺ", "a" * 40, "ab" * 20, "foo<sep>bar <sep> baz<sep>", "xTOKy TOK TOK2 TOK", "TOK",
]
REAL_TEXTS = TEXTS + ["<|im_end|><|im_end|> <|endoftext|>\n<repo_name>", "<|im_start|", "|im_end|>", "a <|im_end|>b <s> c</s>d"]


def words_of(count, alphabet):
    return ["".join(RANDOM.choice(alphabet) for _ in range(RANDOM.randrange(1, 12))) for _ in range(count)]


REAL_TEXTS += [" ".join(words_of(4, "aé1½ \n\u0085\ufeff.,'٣🙂\u200d猫<s>|")) for _ in range(60)]


def encodings(tokenizer, texts):
    out = []
    for text in texts:
        tokenizer.encode_special_tokens = False
        with_added = tokenizer.encode(text).ids
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        row = {"text": text, "ids": ids}
        if plain != ids:
            row["plain"] = plain
        if with_added != ids:
            row["added"] = with_added
        out.append(row)
    return out


def decodings(tokenizer, lists):
    return [{"ids": ids, "kept": tokenizer.decode(ids, skip_special_tokens=False), "skipped": tokenizer.decode(ids)} for ids in lists]


def id_lists(tokenizer, texts, count, size):
    lists = [[], [0], [size + 7], [0, 1, 2, 1, 0]]
    lists += [tokenizer.encode(text).ids for text in texts]
    lists += [[RANDOM.randrange(size + 3) for _ in range(RANDOM.randrange(1, 16))] for _ in range(count)]
    lists += [[i] for i in range(0, min(size, 600), 7)]
    return lists


def bytes_as_tokens(tokenizer, spell, text):
    """One token a byte, where the vocabulary has them all."""
    ids = [tokenizer.token_to_id(spell(b)) for b in text.encode()]
    return None if None in ids else ids


def byte_level_alphabet():
    printable = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(0x100 + i) for i, b in enumerate(others)}}


def real(name, spell):
    tokenizer = Tokenizer.from_file(str(FIXTURES / name / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    lists = id_lists(tokenizer, TEXTS[:30], 120, size)
    byte_ids = [i for i in (tokenizer.token_to_id(spell(b)) for b in range(256)) if i is not None]
    lists += [[RANDOM.choice(byte_ids) for _ in range(RANDOM.randrange(1, 9))] for _ in range(120)]
    lists += [[RANDOM.choice(byte_ids + [RANDOM.randrange(size)]) for _ in range(RANDOM.randrange(1, 24))] for _ in range(60)]
    for text in ["🍣", "👩‍👩‍👧‍👦", "€é猫", "\ufeffa", "a\ufeff"]:
        ids = bytes_as_tokens(tokenizer, spell, text)
        if ids:
            lists += [ids, ids[:-1], ids[1:], ids + [ids[0]], ids[:2] + [size - 1] + ids[2:], [1] + ids + [2] + ids[:1]]
    return {"name": name, "encode": encodings(tokenizer, REAL_TEXTS), "decode": decodings(tokenizer, lists)}


def added(id, content, **flags):
    base = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {**base, **flags}


def letters(texts, *extra):
    seen = {}
    for text in texts:
        for variant in (text, text.lower(), text.upper(), *extra):
            for c in variant:
                seen.setdefault(c)
    return list(seen)


def split_model(texts):
    """A BPE whose ids show where words begin: the first character of a word has its own id, the others are '##' ones."""
    import unicodedata

    texts = [unicodedata.normalize(form, t) for t in texts for form in ("NFC", "NFD", "NFKC", "NFKD")] + texts
    characters = letters(texts, "▁", "".join(byte_level_alphabet().values()))
    vocab = {"[UNK]": 0}
    for c in characters:
        vocab.setdefault(c, len(vocab))
        vocab.setdefault("##" + c, len(vocab))
    return {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": "[UNK]", "continuing_subword_prefix": "##", "fuse_unk": False}


def file(model, normalizer=None, pre=None, post=None, decoder=None, tokens=()):
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": list(tokens), "normalizer": normalizer,
        "pre_tokenizer": pre, "post_processor": post, "decoder": decoder, "model": model,
    }


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


SPLIT_TEXTS = TEXTS
PRE = {
    "digits": {"type": "Digits", "individual_digits": True},
    "digits together": {"type": "Digits", "individual_digits": False},
    "byte level": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "byte level, space, no regex": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False},
    "digits, byte level with a space": sequence(
        "pretokenizers", {"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    ),
    "metaspace always": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    "metaspace first": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
    "metaspace never": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
    "metaspace unsplit": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
    "whitespace": {"type": "Whitespace"},
    "whitespace split": {"type": "WhitespaceSplit"},
    "bert": {"type": "BertPreTokenizer"},
    "char": {"type": "CharDelimiterSplit", "delimiter": "-"},
    "fixed": {"type": "FixedLength", "length": 3},
    "whitespace split, metaspace": sequence(
        "pretokenizers", {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    ),
    "qwen": sequence(
        "pretokenizers",
        {
            "type": "Split", "behavior": "Isolated", "invert": False,
            "pattern": {"Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
        },
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ),
}
for behavior in ["Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"]:
    PRE[f"split regex {behavior}"] = {"type": "Split", "pattern": {"Regex": "(-|\\s)"}, "behavior": behavior, "invert": False}
    PRE[f"split string {behavior}"] = {"type": "Split", "pattern": {"String": "-"}, "behavior": behavior, "invert": False}
    PRE[f"punctuation {behavior}"] = {"type": "Punctuation", "behavior": behavior}
for behavior in ["Isolated", "Removed", "Contiguous"]:
    PRE[f"split inverted {behavior}"] = {"type": "Split", "pattern": {"Regex": "\\w+|-"}, "behavior": behavior, "invert": True}
PRE["split literal that looks like a pattern"] = {"type": "Split", "pattern": {"String": "$1 $&"}, "behavior": "Isolated", "invert": False}

NORMALIZERS = {
    **{form: {"type": form} for form in ["NFC", "NFD", "NFKC", "NFKD"]},
    "lowercase": {"type": "Lowercase"},
    "strip": {"type": "Strip", "strip_left": True, "strip_right": True},
    "strip left": {"type": "Strip", "strip_left": True, "strip_right": False},
    "accents": sequence("normalizers", {"type": "NFD"}, {"type": "StripAccents"}),
    "replace string": {"type": "Replace", "pattern": {"String": "a"}, "content": "$1$&"},
    "replace regex": {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": "-"},
    "prepend": sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
    "strip, prepend": sequence("normalizers", {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Prepend", "prepend": "▁"}),
}
ADDED = {
    "plain flags": {},
    "lstrip": {"lstrip": True},
    "rstrip": {"rstrip": True},
    "both strips": {"lstrip": True, "rstrip": True},
    "single word": {"single_word": True},
    "normalized": {"normalized": True},
    "normalized, not special": {"normalized": True, "special": False},
    "not special": {"special": False},
}
SPM = sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
META = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
DECODERS = {
    "none": None,
    "byte level": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "metaspace": META,
    "metaspace never": {**META, "prepend_scheme": "never"},
    "word piece": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "word piece, no cleanup": {"type": "WordPiece", "prefix": "##", "cleanup": False},
    "bpe": {"type": "BPEDecoder", "suffix": "</w>"},
    "llama": sequence(
        "decoders", {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ),
    "gemma": sequence("decoders", {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}),
    "strips after fuse": sequence("decoders", {"type": "Fuse"}, {"type": "Strip", "content": "▁", "start": 2, "stop": 2}),
    "strip before fuse": sequence("decoders", {"type": "Strip", "content": "▁", "start": 1, "stop": 1}, {"type": "Fuse"}),
    "replace after fuse": sequence("decoders", {"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "ab"}, "content": "$&"}),
    "replace regex": {"type": "Replace", "pattern": {"Regex": "[ab]+"}, "content": "$1"},
    "replace regex after fuse": sequence("decoders", {"type": "Fuse"}, {"type": "Replace", "pattern": {"Regex": "[ab]+"}, "content": "-"}),
    "byte fallback after fuse": sequence("decoders", {"type": "Fuse"}, {"type": "ByteFallback"}),
    "byte level after fuse": sequence("decoders", {"type": "Fuse"}, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}),
    "metaspace after fuse": sequence("decoders", {"type": "Fuse"}, META),
}
DECODER_VOCAB = [
    "<unk>", "<s>", "</s>", "▁", "▁a", "▁▁b", "b▁", "a", "b", "ab", "▁x▁", "##ing", "ing", ".", ",", "'", " n't", "do", "not", "word</w>", "en</w>d",
    "Ġ", "Ġa", "ðŁ", "į", "£", "é", "猫", "Ã©", "<0xE2>", "<0x82>", "<0xAC>", "<0xF0>", "<0x41>", "<0x0a>", "<0x+A>", "<0xZZ>", " ", "", "\ufeff", "ï»¿",
]


def bpe(texts, **fields):
    """Every character of the texts and the bytes, with merges that fight over 'a', 'b' and '▁'."""
    merges = [["a", "a"], ["a", "b"], ["aa", "aa"], ["b", "a"], ["▁", "▁"], ["▁", "a"], ["▁▁", "▁▁"], ["ab", "ab"], ["T", "O"], ["TO", "K"], ["<", "s"], ["<s", ">"]]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for b in range(256):
        vocab[f"<0x{b:02X}>"] = len(vocab)
    for c in letters(texts, "▁"):
        if c not in "½²①猫👩日":
            vocab.setdefault(c, len(vocab))
    for a, b in merges:
        vocab.setdefault(a + b, len(vocab))
    return {"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, **fields}


def unigram(texts):
    pieces = [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], ["▁", -2.0], ["▁a", -2.5], ["ab", -3.0], ["aa", -3.1], ["aaaa", -4.0], ["<|", -3.0], ["TOK", -4.0]]
    known = {p for p, _ in pieces}
    for i, c in enumerate(letters(texts, "▁")):
        if c not in known and c not in "½²①猫👩日":
            pieces.append([c, -5.0 - i / 50])
    return {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False}


def word_piece():
    pieces = ["[UNK]", "[CLS]", "[SEP]", "a", "##a", "b", "##b", "ab", "##ab", "hello", "##o", "hell", ",", "world", "!", "-", "the", "final", "count", "##down", "[", "]", "CLS", "##CLS"]
    return {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 20, "vocab": {p: i for i, p in enumerate(pieces)}}


def template(before, after):
    special = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    ids = {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}, "</s>": {"id": "</s>", "ids": [2, 1], "tokens": ["</s>", "<s>"]}}
    return {"type": "TemplateProcessing", "single": [special] * before + [text] + [end] * after, "pair": [text, text | {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": ids}


def made():
    control = [added(1, "<s>"), added(2, "</s>")]
    for name, pre in PRE.items():
        yield f"pre-tokenizer: {name}", file(split_model(SPLIT_TEXTS), pre=pre), SPLIT_TEXTS
    for name, normalizer in NORMALIZERS.items():
        yield f"normalizer: {name}", file(split_model(SPLIT_TEXTS), normalizer=normalizer), SPLIT_TEXTS
    for name, flags in ADDED.items():
        for kind, normalizer in [("spm", SPM), ("no normalizer", None)]:
            tokens = [added(0, "<unk>"), *control, added(9000, "<sep>", **flags), added(9001, "TOK", **flags)]
            yield f"added tokens: {name}, {kind}", file(bpe(TEXTS), normalizer=normalizer, tokens=tokens), TEXTS
    for scheme in ["always", "first", "never"]:
        pre = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
        yield f"llama with metaspace {scheme}", file(bpe(TEXTS), pre=pre, tokens=control, post=template(1, 0)), TEXTS
    yield "bpe: unknown fused", file(bpe(TEXTS, byte_fallback=False), tokens=control), TEXTS
    yield "bpe: unknown apart", file(bpe(TEXTS, byte_fallback=False, fuse_unk=False), tokens=control), TEXTS
    yield "bpe: unknown dropped", file(bpe(TEXTS, byte_fallback=False, unk_token=None), tokens=control), TEXTS
    yield "bpe: ignore merges", file(bpe(TEXTS, ignore_merges=True), tokens=control, pre={"type": "WhitespaceSplit"}), TEXTS
    yield "unigram", file(unigram(TEXTS), normalizer=SPM, tokens=control, post=template(0, 1)), TEXTS
    yield "unigram, metaspace", file(unigram(TEXTS), pre=META, tokens=control, post=template(1, 1)), TEXTS
    yield "word piece", file(
        word_piece(), normalizer={"type": "Lowercase"}, pre={"type": "BertPreTokenizer"}, tokens=[added(1, "[CLS]"), added(2, "[SEP]")],
        post={"type": "BertProcessing", "cls": ["[CLS]", 1], "sep": ["[SEP]", 2]},
    ), ["Hello, World!", "abab ba", "the-final--countdown", "[CLS] a [SEP]", "a" * 21, "xyz", ""]


def main():
    cases = []
    for name, config, texts in made():
        tokenizer = Tokenizer.from_str(json.dumps(config))
        cases.append({"name": name, "encode": encodings(tokenizer, texts)})
        config["model"] = {**config["model"]}
        cases[-1]["file"] = config
    decoders = []
    vocab = {t: i for i, t in enumerate(DECODER_VOCAB)}
    lists = [[], [3, 4], [4, 3], [29, 30, 31], [29, 30], [29, 30, 31, 32], [32, 29, 30, 31, 4], [33, 34, 35, 36], [23, 24, 25], [23, 24, 25, 4]]
    lists += [[RANDOM.randrange(len(vocab) + 1) for _ in range(RANDOM.randrange(1, 9))] for _ in range(60)]
    lists = [ids for ids in lists if not any(i >= len(vocab) for i in ids) or RANDOM.random() < 0.5]
    for name, decoder in DECODERS.items():
        tokenizer = Tokenizer.from_str(json.dumps(file({"type": "BPE", "vocab": vocab, "merges": []}, decoder=decoder, tokens=[added(1, "<s>"), added(2, "</s>")])))
        rows = []
        for ids in lists:
            try:
                rows.append({"ids": ids, "kept": tokenizer.decode(ids, skip_special_tokens=False), "skipped": tokenizer.decode(ids)})
            except BaseException as error:  # a panic of Rust's: there is nothing to be equal to
                print(name, ids, str(error)[:80], file=sys.stderr)
        decoders.append({"name": name, "decoder": decoder, "decode": rows})
    alphabet = byte_level_alphabet()
    out = {
        "tokenizers": tokenizers.__version__,
        "real": [real("stories260k", lambda b: f"<0x{b:02X}>"), real("smollm2", lambda b: alphabet[b])],
        "decoderVocab": DECODER_VOCAB,
        "decoders": decoders,
        "texts": TEXTS,
        "made": [],
    }
    # The models are large and few: each is written once and named by the cases that use it.
    models = []
    for case in cases:
        model = case["file"].pop("model")
        if model not in models:
            models.append(model)
        case["model"] = models.index(model)
        if [row["text"] for row in case["encode"]] == TEXTS:
            for row in case["encode"]:
                del row["text"]
        out["made"].append(case)
    out["models"] = models
    json.dump(out, sys.stdout, ensure_ascii=True, separators=(",", ":"))


main()
