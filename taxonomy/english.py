"""Articles, plurals and number words for the phrases of a tree.

The house has its own rules, small and fixed, because a prompt set is known by its hash: an update of a library
must not move a word in it. The tests compare them with such a library on every item that ships.
"""

import re
import unicodedata

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
"""Number words by value."""

_SILENT_H = re.compile(r"(heir|hon(est|or|our)|hour)", re.I)
_YOU_OR_WONE = re.compile(r"(eu|ewe|once\b|one\b|one-|u(?=[bcfhjqrst][aeiou])|uni(?!n|m)|uku|ukr|ugand|u-|usu)", re.I)
"""Spelled with a vowel, spoken with a consonant: European, one-eyed, used, unicorn, ukulele."""
_LETTER_BY_LETTER = re.compile(r"[A-Z]{2,}\b|[A-Za-z]-|[A-Z](?:\d|\b)|[BCDFGHJKLMNPQRSTVWXZ]{2,}")
_SPOKEN_AS_WORD = re.compile(r"(NASA|NATO|UNESCO|UNICEF|LAN|UFO)\b")

_IRREGULAR = {
    "person": "people", "goose": "geese", "louse": "lice", "ox": "oxen", "half": "halves", "elf": "elves",
    "life": "lives", "thief": "thieves", "sheaf": "sheaves", "hoof": "hooves", "wharf": "wharves",
    "potato": "potatoes", "tomato": "tomatoes", "hero": "heroes", "echo": "echoes", "mango": "mangoes",
    "volcano": "volcanoes", "torpedo": "torpedoes", "buffalo": "buffaloes", "mosquito": "mosquitoes",
    "tornado": "tornadoes", "domino": "dominoes", "cactus": "cacti", "fungus": "fungi", "nucleus": "nuclei",
    "larva": "larvae", "double bass": "double basses", "oasis": "oases", "axis": "axes", "quiz": "quizzes",
    "passer-by": "passers-by", "passerby": "passersby",
}  # fmt: skip
_IRREGULAR_ENDS = {
    "woman": "women", "man": "men", "wife": "wives", "child": "children", "foot": "feet", "tooth": "teeth",
    "mouse": "mice", "wolf": "wolves", "dwarf": "dwarves", "shelf": "shelves", "scarf": "scarves", "leaf": "leaves",
    "loaf": "loaves", "knife": "knives", "calf": "calves", "sheep": "sheep", "fish": "fish", "deer": "deer",
    "craft": "craft",
}  # fmt: skip
"""Also at the end of longer words: bookshelf, grandchild, jellyfish, hovercraft."""
_REGULAR_AFTER_ALL = {"human", "german", "roman", "norman", "shaman", "talisman", "ottoman", "caiman", "turkoman"}
_SAME = {
    "bison", "moose", "elk", "salmon", "trout", "tuna", "cod", "squid", "shrimp", "swine", "series", "species",
    "carp", "bass", "mackerel", "herring", "halibut", "sashimi", "sushi", "ibex", "dice", "scissors", "binoculars",
    "glasses", "sunglasses", "goggles", "headphones", "jeans", "shorts", "trousers", "pliers", "tongs", "tweezers",
    "shears", "chess", "samurai", "ninja", "bonsai", "gyoza",
}  # fmt: skip
_HEAD_FIRST = re.compile(
    r"(.+?)( (?:of|in|on|with|at|for|from|to|under|over|by|without|beside|inside|on top of) .+)"  # bowl of rice
    r"|(.*?\w+)(-(?:in|of|to|de|at)-\S+)"  # sister-in-law
)


def indefinite(phrase: str) -> str:
    """The phrase with `a` or `an`, by how its first word is spoken."""
    return f"{'an' if _begins_with_vowel(phrase) else 'a'} {phrase}"


def plural(phrase: str) -> str:
    """Many of a thing named in one to six words: its head noun is the last word before `of`, `with`, `in` ..."""
    if compound := _HEAD_FIRST.fullmatch(phrase):
        head, rest = compound.group(1, 2) if compound[1] else compound.group(3, 4)
        return plural(head) + rest
    if phrase.lower() in _IRREGULAR:
        return _plural_word(phrase)
    *before, last = re.split(r"([ -])", phrase)
    return "".join(before) + _plural_word(last)


def noun_phrase(*words: str | None) -> str:
    """The words that are there, joined."""
    return " ".join(word for word in words if word)


def with_capital(sentence: str) -> str:
    """The sentence with its first letter as a capital; what follows keeps its spelling."""
    return sentence[:1].upper() + sentence[1:]


def _begins_with_vowel(phrase: str) -> bool:
    word = phrase.split()[0]
    number = re.match(r"\d+", word)
    if number:
        return number[0].startswith("8") or number[0] in ("11", "18")
    if _LETTER_BY_LETTER.match(word) and not _SPOKEN_AS_WORD.match(word):
        return word[0].upper() in "AEFHILMNORSX"
    if _SPOKEN_AS_WORD.match(word) and word[0] == "U":
        return False
    if _SILENT_H.match(word):
        return True
    if _YOU_OR_WONE.match(word):
        return False
    return unicodedata.normalize("NFD", word)[0].lower() in "aeiouæø"


def _plural_word(word: str) -> str:
    lower = word.lower()
    if lower in _SAME:
        return word
    if lower in _IRREGULAR:
        return word[0] + _IRREGULAR[lower][1:]
    for one, many in _IRREGULAR_ENDS.items():
        if lower.endswith(one) and lower not in _REGULAR_AFTER_ALL:
            return word[: len(word) - len(one)] + many
    if re.search(r"(ese|ois|ops)$", lower):  # Senegalese, Malinois, Triceratops
        return word
    if re.search(r"(s|x|z|ch|sh)$", lower):
        return word + "es"
    if re.search(r"[^aeiou]y$", lower):
        return word[:-1] + "ies"
    return word + "s"
