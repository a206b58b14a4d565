"""Item trees: what a file says is what is drawn from, and every mistake is named with file, line and fix."""

import pytest

from lens_core.recipes import RecipeProblem
from taxonomy.items import check_quotas
from taxonomy.tree import load_any_tree, load_tree
from tests.small_tree import BEASTS, HEAD, write_small_tree


def loaded(folder, **changes):
    return load_any_tree(str(write_small_tree(folder, **changes)))


def test_a_tree_is_read_with_plurals_manners_and_shares(tmp_path):
    tree = loaded(tmp_path)

    assert (tree.name, tree.size) == ("small", 12)
    assert [(c.name, c.quota, c.size, c.always) for c in tree.categories] == [
        ("beasts", 0.75, 9, ()),
        ("signs", 0.25, 3, ("text",)),
    ]
    items = {item.one: item.many for branch in tree.categories[0].branches for item in branch.items}
    assert (items["cow"], items["ox"], items["octopus"], items["sheep"]) == ("cows", "oxen", "octopuses", "sheep")
    assert tree.categories[1].manners == ("sign",)


def test_the_hash_is_of_every_word(tmp_path):
    first = loaded(tmp_path).hash

    assert loaded(tmp_path).hash == first
    assert loaded(tmp_path, signs__sub_categories__0__texts=["OPEN"]).hash != first
    assert loaded(tmp_path, head__manners__beast__counts=[2]).hash != first
    assert loaded(tmp_path, beasts__dimensions=["colour"]).hash != first


BRANCH = "beasts__sub_categories__0__"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({BRANCH + "items": ["cow", "Cow"]}, r"beasts\.yaml:\d+: item 'Cow' .* stands already in 'of the farm'"),
        ({BRANCH + "items": ["cow", "seal"]}, r"item 'seal' of 'of the sea' stands already in 'of the farm' .*:\d+.*"),
        ({"signs__sub_categories__0__items": ["hen"]}, r"signs\.yaml:\d+: item 'hen' .*\(.*beasts\.yaml:\d+\)"),
        ({BRANCH + "items": []}, r"beasts\.yaml:\d+: sub-categories\.0\.items: "),
        ({"beasts__sub_categories": []}, r"beasts\.yaml:\d+: sub-categories: "),
        ({BRANCH + "itms": []}, r"beasts\.yaml:\d+: unknown field 'sub-categories\.0\.itms' .did you mean 'items'"),
        ({"beasts__subcategories": []}, r"unknown field 'subcategories' .did you mean 'sub-categories'"),
        ({BRANCH + "items": ["cow", {"one": "ox"}]}, r"beasts\.yaml:\d+: field 'sub-categories\.0\.items\.1\.many'"),
        ({BRANCH + "items": ["cow", 7]}, r"beasts\.yaml:\d+: sub-categories\.0\.items\.1"),
        ({BRANCH + "items": ["cow", True]}, r"beasts\.yaml:\d+: sub-categories\.0\.items\.1"),
        ({BRANCH + "items": ["cow", "a hen"]}, r"beasts\.yaml:\d+: .*'a hen' begins with an article"),
        ({BRANCH + "items": ["cow", " hen"]}, r"' hen' is blank, or has space"),
        ({BRANCH + "colours": ["black", "black"]}, r"beasts\.yaml:\d+: .*'black' stands twice"),
        ({BRANCH + "others": ["wooden bucket"]}, r"beasts\.yaml:\d+: .*'wooden bucket' has no article"),
        ({BRANCH + "actions": ["chews hay"]}, r"beasts\.yaml:\d+: .*'chews hay' does not begin with a participle"),
        ({"signs__sub_categories__0__texts": ['say "hi"']}, "has a quotation mark"),
        ({"beasts__dimensions": ["color"]}, r"beasts\.yaml:\d+: unknown dimension 'color' .did you mean 'colour'"),
        ({"signs__dimensions": ["count"], "head__categories__1__always": ["text"]}, "always asks for 'text'"),
        ({"beasts__sub_categories__1__name": "of the farm"}, "sub-category 'of the farm' stands twice"),
        ({"signs__name": "beasts"}, "'beasts' is the name of .*beasts.yaml too"),
        ({"head__categories__0__quota": 0.5}, "add up to 0.75, not to 1"),
        ({"head__categories__0__manner": "beasts"}, "no manner 'beasts' .did you mean 'beast'"),
        ({"head__categories__0__manners": {"of the se": "sign"}}, "no sub-category 'of the se' .did you mean 'of the"),
        ({"head__categories__0__file": "beast.yaml"}, r"beast\.yaml cannot be read"),
        ({"head__categories__1__file": "beasts.yaml"}, "is listed twice"),
        ({"head__size": 13}, "'beasts' has 9 items, but 13 prompts at a quota of 0.75 ask for 10"),
        ({"head__manners__beast__counts": [1]}, r"small\.yaml:\d+: manners\.beast\.counts\.0"),
        ({"head__manners__beast__frame": {"light": []}}, r"small\.yaml:\d+: manners\.beast\.frame\.light"),
    ],
)
def test_mistakes_are_named(tmp_path, changes, message):
    with pytest.raises(RecipeProblem, match=message):
        loaded(tmp_path, **changes)


def test_a_branch_without_words_for_any_dimension_is_refused(tmp_path):
    bare = {"name": "bare", "items": ["toad"]}
    changes = {"beasts__sub_categories": [*BEASTS["sub-categories"], bare], "beasts__dimensions": ["colour"]}

    with pytest.raises(RecipeProblem, match=r"beasts\.yaml:\d+: sub-category 'bare' has words for none.*fill one of"):
        loaded(tmp_path, **changes)


def test_more_prompts_than_items_are_refused(tmp_path):
    tree = loaded(tmp_path)

    check_quotas(tree, 12)
    with pytest.raises(RecipeProblem, match="ask for 15: lower its quota or their number, or add items"):
        check_quotas(tree, 20)


def test_an_item_tree_is_no_tree_of_slots(tmp_path):
    with pytest.raises(RecipeProblem, match=r"lens-rl prompts build --tree .*small.yaml --out FILE"):
        load_tree(str(write_small_tree(tmp_path)))
    assert HEAD["grammar"]
