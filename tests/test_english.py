"""Articles and plurals, word by word: what a reader would stumble over."""

import pytest

from taxonomy.english import indefinite, plural, with_capital

AN = """hour board, honest fox, heirloom tomato, umbrella, urn, urban garden, ugly duckling, uninhabited island, umiak,
usher, ulu knife, Uzbek baker, MRI scanner, LED lamp, x-ray goggle set, X-ray, 8-bit console, 18-wheeler, 11th-century
bell, SOS sign, S-shaped hook, F1 car, éclair, Ōtsu-e print, oboe, apple, Inuit carver, uncut gem, elderly man"""
A = """unicorn, uniform, used book, ukulele, one-eyed cat, once-grand hotel, European owl, eucalyptus, USB stick, UFO,
UNESCO sign, universal remote, unique vase, utility van, usual thing, Ugandan doctor, Ukrainian, Uruguayan nurse,
ewe, yew, herb garden, hotel, horse, VR headset, DJ, UI designer, T-shirt, LAN party, 1930s aviator, 7-up"""
PLURALS = """cow cows, box boxes, church churches, baby babies, monkey monkeys, leaf leaves, cloverleaf cloverleaves,
bookshelf bookshelves, grandchild grandchildren, Peruvian woman:Peruvian women, man men, snowman snowmen, human humans,
caiman caimans, midwife midwives, dwarf dwarves, roof roofs, photo photos, potato potatoes, volcano volcanoes,
fish fish, jellyfish jellyfish, sheep sheep, hovercraft hovercraft, Senegalese Senegalese, Triceratops Triceratops,
octopus octopuses, cactus cacti, goose geese, mongoose mongooses, fox foxes, ox oxen, double bass:double basses,
toothbrush toothbrushes, quiz quizzes, passer-by passers-by, sister-in-law sisters-in-law,
bottle of wine:bottles of wine, woman in a sari:women in a sari,
sign-in form:sign-in forms, farm-to-table dinner:farm-to-table dinners,
salt and pepper shaker:salt and pepper shakers, jack-in-the-box jacks-in-the-box, pair of scissors:pairs of scissors"""


def words(text):
    return [word.strip() for word in text.replace("\n", " ").split(",")]


@pytest.mark.parametrize("phrase", words(AN))
def test_an(phrase):
    assert indefinite(phrase) == f"an {phrase}"


@pytest.mark.parametrize("phrase", words(A))
def test_a(phrase):
    assert indefinite(phrase) == f"a {phrase}"


@pytest.mark.parametrize("pair", words(PLURALS))
def test_plurals(pair):
    one, many = pair.split(":") if ":" in pair else pair.split()
    assert plural(one) == many


def test_a_capital_changes_one_letter():
    assert with_capital("éclairs on an iPad") == "Éclairs on an iPad"
    assert with_capital('"OPEN" it says') == '"OPEN" it says'
    assert with_capital("") == ""
